//! Containers in a small recorded tree.
