//! Transports: what moves whole messages between two vats.
//!
//! A [`Transport`] is two halves and a handle that ends both. The halves are used by one thread each: the
//! send thread alone waits for output, the receive thread alone waits for input.
