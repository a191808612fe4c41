//! See `capnp_threads_fuzz::message`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| capnp_threads_fuzz::message(data));
