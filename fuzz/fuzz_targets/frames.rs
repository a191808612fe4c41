//! See `capnp_threads_fuzz::frames`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| capnp_threads_fuzz::frames(data));
