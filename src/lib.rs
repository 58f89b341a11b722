//! A lock-free, in-process, cost-budgeted cache.
