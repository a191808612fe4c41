//! Indices of capability pointers: read from a content, and kept while a content is copied.
//!
//! ```text
//! Note [Copies keep indices]
//! ==========================
//! The `capnp` crate shows a capability pointer only as the hook that a table has at its index. To see the index itself, a
//! content is lent a table of `Index`es, hooks that hold nothing but their own index. The crate copies a content by taking
//! a hook out of the one table and appending it to the other, for each capability pointer that it meets. So the indices in
//! the copy count the pointers in the order in which they are met. If the content had other indices, the copy is given
//! those (`remap_caps`): every descriptor must be sent exactly once and in its place, because each counts as one
//! reference, whether the content has no pointer to it, one, or two.
//! ```

use capnp::any_pointer;
use capnp::capability::{Promise, Request};
#[cfg(test)]
use capnp::private::capability::PipelineOp;
use capnp::private::capability::{ClientHook, ParamsHook, ResultsHook};
use capnp::private::layout::CapTable;
use capnp::traits::{Imbue, ImbueMut};
#[cfg(test)]
use capnp::ErrorKind;
use capnp::MessageSize;

/// A hook that is only an index. See Note [Copies keep indices].
#[derive(Clone, Copy)]
struct Index(u32);

/// A table in which each entry is its own index.
pub(super) fn table(len: usize) -> CapTable {
    (0..).take(len).map(|i| Some(Box::new(Index(i)) as Box<dyn ClientHook>)).collect()
}

/// The index of the capability at a path from a root that was lent a [`table`]. `None` if it is null. Tests compare
/// `cap_paths::index_in`, which needs no table, with this.
#[cfg(test)]
pub(super) fn at(root: any_pointer::Reader<'_>, path: &[u16]) -> Result<Option<u32>, capnp::Error> {
    let ops: Vec<_> = path.iter().map(|&field| PipelineOp::GetPointerField(field)).collect();
    match root.get_pipelined_cap(&ops) {
        Ok(hook) => Ok(Some(hook.get_ptr() as u32)),
        Err(e) if e.kind == ErrorKind::MessageContainsNullCapabilityPointer => Ok(None),
        Err(e) => Err(e),
    }
}

/// Copies a content whose capability pointers are indices into a table of `caps` descriptors. Returns the old
/// index of each capability pointer of the copy, whose own indices count from 0.
///
/// # Errors
///
/// If the content is malformed, or a capability pointer in it is beyond the table.
pub(super) fn copy(
    from: any_pointer::Reader<'_>,
    mut to: any_pointer::Builder<'_>,
    caps: usize,
) -> Result<Vec<u32>, capnp::Error> {
    let (table, mut met) = (table(caps), CapTable::new());
    let mut from = from;
    from.imbue(&table);
    let mut to = to.reborrow();
    to.imbue_mut(&mut met);
    to.set_as::<any_pointer::Owned>(from)?;
    Ok(met.iter().flatten().map(|hook| hook.get_ptr() as u32).collect())
}

impl Index {
    fn error() -> capnp::Error {
        capnp::Error::unimplemented("an index into a table of capabilities can't be called".into())
    }
}

impl ClientHook for Index {
    fn add_ref(&self) -> Box<dyn ClientHook> {
        Box::new(*self)
    }

    fn new_call(
        &self,
        _interface_id: u64,
        _method_id: u16,
        _size_hint: Option<MessageSize>,
    ) -> Request<any_pointer::Owned, any_pointer::Owned> {
        unreachable!("an index never leaves this module")
    }

    fn call(
        &self,
        _interface_id: u64,
        _method_id: u16,
        _params: Box<dyn ParamsHook>,
        _results: Box<dyn ResultsHook>,
    ) -> Promise<(), capnp::Error> {
        Promise::err(Self::error())
    }

    fn get_brand(&self) -> usize {
        0
    }

    fn get_ptr(&self) -> usize {
        self.0 as usize
    }

    fn get_resolved(&self) -> Option<Box<dyn ClientHook>> {
        None
    }

    fn when_more_resolved(&self) -> Option<Promise<Box<dyn ClientHook>, capnp::Error>> {
        None
    }

    fn when_resolved(&self) -> Promise<(), capnp::Error> {
        Promise::ok(())
    }
}
