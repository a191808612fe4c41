//! See `capnp_threads_fuzz::line`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| capnp_threads_fuzz::line(data));
