//! The request that the stock generator is given.
//!
//! The stock generator stops at some types, and it writes code that does not compile where a name of the schema is
//! also a name of its own. So it is given a copy of the request in which such types are replaced ([`types`]) and such
//! names are changed ([`names`]). The names of files become names of modules ([`files`]), and each file is said to
//! import all others, because the stock generator otherwise does not know the files that are imported by an imported
//! file.
//!
//! Generated code embeds the schema of each struct and enum. [`Prepared::embedded`] says what the embedded schemas
//! have to be, so that they are those of the original request.

pub(crate) mod files;
pub(crate) mod names;
mod suspects;
pub(crate) mod types;

use std::collections::HashMap;

use capnp::message::{Builder, HeapAllocator, Reader, ReaderOptions};
use capnp::schema_capnp::{code_generator_request as request, node};
use capnp::serialize::{self, OwnedSegments};

pub(crate) use suspects::{Kind, Suspect};

/// A request that is ready for the stock generator, one file at a time.
pub(crate) struct Prepared {
    message: Reader<OwnedSegments>,
    embedded: HashMap<u64, Vec<u8>>,
}

impl Prepared {
    pub(crate) fn of(original: request::Reader<'_>) -> capnp::Result<Self> {
        let mut message = Builder::new_default();
        let mut copy: request::Builder<'_> = message.init_root();
        let nodes = original.get_nodes()?;
        let ours = types::placeholders();
        let mut copies = copy.reborrow().init_nodes(nodes.len() + ours.len() as u32);
        for (at, node) in nodes.iter().enumerate() {
            copies.set_with_caveats(at as u32, node)?;
            types::replace(node, copies.reborrow().get(at as u32))?;
        }
        for (at, placeholder) in (nodes.len()..).zip(&ours) {
            placeholder.write(copies.reborrow().get(at));
        }
        names::change(original, copies)?;
        copy.reborrow().set_source_info(original.get_source_info()?)?;
        files::write(original, copy.reborrow())?;

        let copy = copy.into_reader();
        let mut embedded = HashMap::new();
        for (old, new) in nodes.iter().zip(copy.get_nodes()?) {
            let bytes = encode(old)?;
            if bytes != encode(new)? {
                embedded.insert(old.get_id(), bytes);
            }
        }
        let bytes = serialize::write_message_to_words(&message);
        Ok(Prepared { message: read(&bytes)?, embedded })
    }

    pub(crate) fn reader(&self) -> capnp::Result<request::Reader<'_>> {
        self.message.get_root()
    }

    /// The schemas that differ from those in the prepared request, as the stock generator encodes them, by their IDs.
    pub(crate) fn embedded(&self) -> &HashMap<u64, Vec<u8>> {
        &self.embedded
    }

    /// The request for one of the requested files, without the members in `left_out`.
    pub(crate) fn file(&self, file: u32, left_out: &[&Suspect]) -> capnp::Result<Vec<u8>> {
        let mut message = Builder::new_default();
        message.set_root(self.reader()?)?;
        let mut copy: request::Builder<'_> = message.get_root()?;
        let requested = self.reader()?.get_requested_files()?.get(file);
        copy.reborrow().init_requested_files(1).set_with_caveats(0, requested)?;
        suspects::leave_out(copy.get_nodes()?, left_out)?;
        Ok(serialize::write_message_to_words(&message))
    }

    /// The members of a requested file, one of which may be what the stock generator stops at.
    pub(crate) fn suspects(&self, file: u32) -> capnp::Result<Vec<Suspect>> {
        suspects::of(self.reader()?, file)
    }
}

fn read(bytes: &[u8]) -> capnp::Result<Reader<OwnedSegments>> {
    let unlimited = ReaderOptions { traversal_limit_in_words: None, ..ReaderOptions::new() };
    serialize::read_message(bytes, unlimited)
}

/// The words of a node, encoded as the stock generator encodes it to embed it.
fn encode(node: node::Reader<'_>) -> capnp::Result<Vec<u8>> {
    let words = node.total_size()?.word_count as u32 + 1;
    let mut message = Builder::new(HeapAllocator::new().first_segment_words(words));
    message.set_root(node)?;
    Ok(message.get_segments_for_output()[0].to_vec())
}

/// The nodes of a request by their IDs.
pub(crate) fn by_id(request: request::Reader<'_>) -> capnp::Result<HashMap<u64, node::Reader<'_>>> {
    Ok(request.get_nodes()?.iter().map(|node| (node.get_id(), node)).collect())
}
