//! The readers of what comes over the network, for `miharu-fuzz`; each panics where what it read breaks its own rules.
