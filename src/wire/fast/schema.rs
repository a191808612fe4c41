//! The sizes of the structs of `rpc.capnp` that the fast paths write and read, from the generated code, and ordinals of
//! `Message`.

use capnp::traits::HasStructSize;

use crate::generated::rpc_capnp as rpc;
use crate::wire::pointer::StructSize;

const fn size_of<T: HasStructSize>() -> StructSize {
    StructSize::new(T::STRUCT_SIZE.data, T::STRUCT_SIZE.pointers)
}

pub(super) const MESSAGE: StructSize = size_of::<rpc::message::Builder<'_>>();
pub(super) const CALL: StructSize = size_of::<rpc::call::Builder<'_>>();
pub(super) const RETURN: StructSize = size_of::<rpc::return_::Builder<'_>>();
pub(super) const FINISH: StructSize = size_of::<rpc::finish::Builder<'_>>();
pub(super) const RELEASE: StructSize = size_of::<rpc::release::Builder<'_>>();
pub(super) const MESSAGE_TARGET: StructSize = size_of::<rpc::message_target::Builder<'_>>();
pub(super) const PAYLOAD: StructSize = size_of::<rpc::payload::Builder<'_>>();
pub(super) const PROMISED_ANSWER: StructSize = size_of::<rpc::promised_answer::Builder<'_>>();
pub(super) const OP: StructSize = size_of::<rpc::promised_answer::op::Builder<'_>>();
pub(super) const DESCRIPTOR: StructSize = size_of::<rpc::cap_descriptor::Builder<'_>>();

/// The first word of a `Message`, which says what it is.
pub(super) const MESSAGE_CALL: u64 = 2;
pub(super) const MESSAGE_RETURN: u64 = 3;
pub(super) const MESSAGE_FINISH: u64 = 4;
pub(super) const MESSAGE_RELEASE: u64 = 6;
