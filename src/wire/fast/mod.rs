//! Fast paths: each stands in for a plain function, and the crate works without it.
//!
//! | file | stands in for | where it does not know what to do |
//! | --- | --- | --- |
//! | [`fast_decode`] | [`decode_plain`](super::decode::decode_plain) | gives the frame back |
//! | [`fast_encode`] | [`encode_plain`](super::encode::encode_plain) | leaves the message as it is |
//! | [`scratch_pool`] | a `Builder` of the `capnp` crate with a `HeapAllocator` | asks the allocator |
//! | [`buffer_pool`] | `Word::allocate_zeroed_vec`, and dropping | asks the allocator |
//!
//! The two codecs read and write pointer words with [`pointer`](super::pointer) alone. Tests compare each with the
//! plain path: `fast_decode/tests.rs`, `fast_encode/tests.rs`, and the fuzz targets `message` and `frames`.

pub(crate) mod buffer_pool;
pub(crate) mod fast_decode;
pub(super) mod fast_encode;
mod schema;
pub(super) mod scratch_pool;
