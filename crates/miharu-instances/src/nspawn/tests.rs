//! Machines in a small recorded tree.
