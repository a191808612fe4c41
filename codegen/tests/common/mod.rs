//! Requests, directories, and programs that play the part of `capnp`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
#[cfg(unix)]
use std::path::PathBuf;

use capnp::message::{Builder, ReaderOptions};
use capnp::schema_capnp::{code_generator_request as request, field, node};
use capnp::serialize;
use tempfile::TempDir;

/// The request for `zoo-keeper.capnp` and `sub/animal.capnp` in `tests/schema`, as `store` writes it.
pub const STORED: &[u8] = include_bytes!("../schema/stored.request");

/// The request for `top.capnp` in `tests/schema/chain`, as `store` writes it.
#[allow(dead_code)]
pub const CHAIN: &[u8] = include_bytes!("../schema/chain.request");

pub fn directory() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

/// The files under a directory with their contents; the names have slashes.
pub fn files(directory: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut open = vec![directory.to_path_buf()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                open.push(path);
            } else {
                let name = path.strip_prefix(directory).expect("a file in the directory").iter();
                let name = name.map(|part| part.to_string_lossy()).collect::<Vec<_>>().join("/");
                found.insert(name, fs::read_to_string(&path).expect("a text"));
            }
        }
    }
    found
}

/// The stored request after a change.
pub fn changed(change: impl FnOnce(request::Builder<'_>)) -> Vec<u8> {
    let stored = serialize::read_message(STORED, ReaderOptions::new()).expect("the stored request");
    let mut message = Builder::new_default();
    message.set_root(stored.get_root::<request::Reader<'_>>().expect("its root")).expect("a copy");
    change(message.get_root().expect("its root"));
    serialize::write_message_to_words(&message)
}

/// Changes a field of a struct in a request. The struct is named as in `file.capnp:Outer.Inner`.
#[allow(dead_code)]
pub fn change_field(
    request: request::Builder<'_>,
    of: &str,
    name: &str,
    change: impl FnOnce(field::slot::Builder<'_>),
) {
    let nodes = request.reborrow_as_reader().get_nodes().expect("nodes");
    let at = nodes.iter().position(|node| node.get_display_name().is_ok_and(|name| name == of));
    let at = at.expect("the struct") as u32;
    let Ok(node::Struct(node)) = nodes.get(at).which() else { panic!("it is no struct") };
    let mut fields = node.get_fields().expect("fields").iter();
    let field = fields.position(|field| field.get_name().is_ok_and(|field| field == name));
    let field = field.expect("the field") as u32;
    let Ok(node::Struct(node)) = request.get_nodes().expect("nodes").get(at).which() else { unreachable!() };
    let Ok(field::Slot(slot)) = node.get_fields().expect("fields").get(field).which() else {
        panic!("it is a group")
    };
    change(slot);
}

/// A program called `capnp` in `directory`: one of those in `tests/compilers`. It is a link, since a program
/// that was only just written may still be open for writing in a process that another test is starting.
#[cfg(unix)]
pub fn compiler(directory: &Path, name: &str) -> PathBuf {
    let path = directory.join("capnp");
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compilers").join(name);
    std::os::unix::fs::symlink(program, &path).expect("a link");
    path
}

/// A program called `capnp` in `directory` that finds `request` in all schemas, and notes its arguments in
/// the file `arguments` beside it.
#[cfg(unix)]
pub fn compiler_of(directory: &Path, request: &[u8]) -> PathBuf {
    fs::write(directory.join("request"), request).expect("a file");
    compiler(directory, "playback")
}
