//! Requests to generate code, in a form that depends on the schemas and not on the compiler's version.

use std::io::Read;

use capnp::message::{Builder, HeapAllocator, Reader, ReaderOptions};
use capnp::schema_capnp::{code_generator_request as request, node};
use capnp::serialize::{self, OwnedSegments};

use crate::Error;

/// A request to generate code, stripped of what no code depends on:
///
/// - the version of the compiler;
/// - positions in the source text, which newer compilers add to nodes and to what they say of the source;
/// - the entries of `sourceInfo` without any comment.
///
/// The compiler's order of nodes is that of a hash table; here they are in the order of their IDs.
pub(crate) struct Request {
    bytes: Vec<u8>,
    message: Reader<OwnedSegments>,
}

impl Request {
    /// Reads a request as the compiler writes it, or as [`bytes`](Self::bytes) has it.
    pub(crate) fn read(input: impl Read) -> Result<Self, Error> {
        Self::read_capnp(input).map_err(Error::Request)
    }

    fn read_capnp(input: impl Read) -> capnp::Result<Self> {
        let original = serialize::read_message(input, unlimited())?;
        let bytes = strip(original.get_root()?, original.size_in_words())?;
        let message = serialize::read_message(&bytes[..], unlimited())?;
        Ok(Request { bytes, message })
    }

    /// The request as a message, to be stored or handed on.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn reader(&self) -> Result<request::Reader<'_>, Error> {
        self.message.get_root().map_err(Error::Request)
    }

    /// The names of the requested files, as the compiler gives them: relative, and with slashes.
    pub(crate) fn file_names(&self) -> Result<Vec<String>, Error> {
        let files = self.reader()?.get_requested_files().map_err(Error::Request)?;
        let name = |file: request::requested_file::Reader<'_>| Ok(file.get_filename()?.to_string()?);
        files.iter().map(name).collect::<capnp::Result<_>>().map_err(Error::Request)
    }
}

fn unlimited() -> ReaderOptions {
    ReaderOptions { traversal_limit_in_words: None, ..ReaderOptions::new() }
}

/// Copies what is worth keeping. Setting an element "with caveats" cuts it to the size that our version of
/// the schema of schemas has, and so drops the positions.
fn strip(original: request::Reader<'_>, words: usize) -> capnp::Result<Vec<u8>> {
    let words = u32::try_from(words).unwrap_or(0).clamp(64, 1 << 24);
    let mut message = Builder::new(HeapAllocator::new().first_segment_words(words));
    let mut copy: request::Builder<'_> = message.init_root();

    let mut nodes: Vec<_> = original.get_nodes()?.iter().collect();
    nodes.sort_by_key(|node| node.get_id());
    let mut copies = copy.reborrow().init_nodes(nodes.len() as u32);
    for (i, node) in nodes.into_iter().enumerate() {
        copies.set_with_caveats(i as u32, node)?;
    }

    let files = original.get_requested_files()?;
    let mut copies = copy.reborrow().init_requested_files(files.len());
    for (i, file) in files.iter().enumerate() {
        copies.set_with_caveats(i as u32, file)?;
    }

    let mut infos = Vec::new();
    for info in original.get_source_info()? {
        if has_comment(info)? {
            infos.push(info);
        }
    }
    infos.sort_by_key(|info| info.get_id());
    let mut copies = copy.init_source_info(infos.len() as u32);
    for (i, info) in infos.into_iter().enumerate() {
        strip_info(info, copies.reborrow().get(i as u32))?;
    }
    Ok(serialize::write_message_to_words(&message))
}

fn has_comment(info: node::source_info::Reader<'_>) -> capnp::Result<bool> {
    Ok(info.has_doc_comment() || info.get_members()?.iter().any(|member| member.has_doc_comment()))
}

fn strip_info(
    original: node::source_info::Reader<'_>,
    mut copy: node::source_info::Builder<'_>,
) -> capnp::Result<()> {
    copy.set_id(original.get_id());
    if original.has_doc_comment() {
        copy.set_doc_comment(original.get_doc_comment()?);
    }
    let members = original.get_members()?;
    let mut copies = copy.init_members(members.len());
    for (i, member) in members.iter().enumerate() {
        copies.set_with_caveats(i as u32, member)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORED: &[u8] = include_bytes!("../tests/schema/stored.request");

    #[test]
    fn comments_are_kept_and_nothing_else_of_the_source() {
        let request = Request::read(STORED).expect("the stored request");
        let infos =
            request.reader().and_then(|r| r.get_source_info().map_err(Error::Request)).expect("infos");
        assert!(infos.iter().all(|info| has_comment(info).expect("an info")));
        let comments: Vec<_> = infos.iter().map(|info| info.get_doc_comment().expect("a comment")).collect();
        assert!(comments.contains(&"Who works when.\n".into()), "{comments:?}");
        assert_eq!(request.file_names().expect("names"), ["zoo-keeper.capnp", "sub/animal.capnp"]);
    }
}
