//! The contents of all params and results here: a struct of a number, the tag, and some capabilities.

use capnp::any_pointer;
use capnp::capability::FromClientHook;
use capnp::private::layout::{PointerBuilder, PointerReader, StructBuilder, StructReader, StructSize};
use capnp::traits::{FromPointerBuilder, FromPointerReader};
use capnp::Word;
use capnp_threads::{Client, Result};

/// Fills in a content: the number, then each capability in a pointer field of its own.
pub fn fill(content: any_pointer::Builder<'_>, tag: u64, caps: &[Client]) {
    let mut builder: Builder<'_> = content.initn_as(caps.len() as u32);
    builder.0.set_data_field(0, tag);
    builder.0.set_data_field(1, caps.len() as u64);
    for (i, cap) in caps.iter().enumerate() {
        builder.0.reborrow().get_pointer_field(i).set_capability(cap.clone().into_client_hook());
    }
}

/// The number in a content, or 0 if it is no struct: the results of a bootstrap are a capability.
pub fn tag(content: any_pointer::Reader<'_>) -> u64 {
    content.get_as::<Reader<'_>>().map_or(0, |reader| reader.0.get_data_field(0))
}

/// The capabilities in a content, field by field.
pub fn caps(content: any_pointer::Reader<'_>) -> Result<Vec<Client>> {
    let reader: Reader<'_> = content.get_as()?;
    let field = |i| Ok(any_pointer::Reader::new(reader.0.get_pointer_field(i)).get_as_capability()?);
    (0..reader.0.get_data_field::<u64>(1) as usize).map(field).collect()
}

struct Builder<'a>(StructBuilder<'a>);

impl<'a> FromPointerBuilder<'a> for Builder<'a> {
    fn init_pointer(builder: PointerBuilder<'a>, pointers: u32) -> Self {
        Builder(builder.init_struct(StructSize { data: 2, pointers: pointers as u16 }))
    }

    fn get_from_pointer(builder: PointerBuilder<'a>, default: Option<&'a [Word]>) -> capnp::Result<Self> {
        Ok(Builder(builder.get_struct(StructSize { data: 2, pointers: 0 }, default)?))
    }
}

struct Reader<'a>(StructReader<'a>);

impl<'a> FromPointerReader<'a> for Reader<'a> {
    fn get_from_pointer(reader: &PointerReader<'a>, default: Option<&'a [Word]>) -> capnp::Result<Self> {
        Ok(Reader(reader.get_struct(default)?))
    }
}
