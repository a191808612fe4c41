//! A struct of one number and some capabilities: what the tests send as params and results.

use capnp::any_pointer;
use capnp::private::layout::{PointerBuilder, PointerReader, StructBuilder, StructReader, StructSize};
use capnp::traits::{FromPointerBuilder, FromPointerReader};
use capnp::Word;

use crate::cap::{Capability, Client};
use crate::error::Result;

/// How many capabilities a record has room for.
pub const FIELDS: u16 = 4;

const SIZE: StructSize = StructSize { data: 1, pointers: FIELDS };

/// Makes `root` a record.
///
/// # Panics
/// If there are more capabilities than fields.
pub fn write(root: any_pointer::Builder<'_>, number: u64, caps: &[Client]) {
    assert!(caps.len() <= usize::from(FIELDS));
    let Builder(mut record) = root.init_as();
    record.set_data_field(0, number);
    for (field, client) in caps.iter().enumerate().filter(|(_, client)| !client.is_null()) {
        record.reborrow().get_pointer_field(field).set_capability(Box::new(client.clone()));
    }
}

/// The number and the capabilities of a record; null where a field was not set.
///
/// # Errors
/// If the content is something else.
pub fn read(root: any_pointer::Reader<'_>) -> Result<(u64, Vec<Client>)> {
    let Reader(record) = root.get_as()?;
    let mut caps = Vec::new();
    for field in 0..usize::from(FIELDS) {
        let pointer = record.get_pointer_field(field);
        caps.push(match pointer.is_null() {
            true => Client::null(),
            false => any_pointer::Reader::new(pointer).get_as_capability()?,
        });
    }
    Ok((record.get_data_field(0), caps))
}

struct Reader<'a>(StructReader<'a>);

impl<'a> FromPointerReader<'a> for Reader<'a> {
    fn get_from_pointer(reader: &PointerReader<'a>, default: Option<&'a [Word]>) -> capnp::Result<Self> {
        reader.get_struct(default).map(Reader)
    }
}

struct Builder<'a>(StructBuilder<'a>);

impl<'a> FromPointerBuilder<'a> for Builder<'a> {
    fn init_pointer(builder: PointerBuilder<'a>, _length: u32) -> Self {
        Builder(builder.init_struct(SIZE))
    }

    fn get_from_pointer(builder: PointerBuilder<'a>, default: Option<&'a [Word]>) -> capnp::Result<Self> {
        builder.get_struct(SIZE, default).map(Builder)
    }
}
