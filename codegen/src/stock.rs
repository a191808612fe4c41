//! Runs the stock generator.

use std::fs;
use std::panic::{self, AssertUnwindSafe};

use capnp::schema_capnp::code_generator_request as request;
use capnp::serialize;

use crate::codegen::Options;
use crate::prepare::{files, types, Prepared, Suspect};

/// The stock generator's code for one of the requested files, without some members, or why there is none.
pub(crate) fn run(
    prepared: &Prepared,
    file: u32,
    left_out: &[&Suspect],
    options: &Options,
) -> Result<String, String> {
    let text = |error: capnp::Error| match &*error.extra {
        "" => error.to_string(),
        extra => extra.to_owned(),
    };
    let request = prepared.file(file, left_out).map_err(text)?;
    let mut crates = options.crates.clone();
    crates.insert(types::FILE, types::CRATE.to_owned());
    let directory = tempfile::tempdir().map_err(|e| format!("no temporary directory: {e}"))?;
    let mut command = capnpc::codegen::CodeGenerationCommand::new();
    command
        .output_directory(directory.path())
        .default_parent_module(options.default_parent_module.clone())
        .crates_provide_map(crates);
    // The stock generator panics at what it takes for impossible.
    let result = panic::catch_unwind(AssertUnwindSafe(|| command.run(&request[..])));
    match result {
        Ok(result) => result.map_err(text)?,
        Err(panic) => return Err(format!("the generator panicked: {}", said(&*panic))),
    }
    let message = serialize::read_message(&request[..], Default::default()).map_err(text)?;
    let request: request::Reader<'_> = message.get_root().map_err(text)?;
    let requested = request.get_requested_files().map_err(text)?.get(0);
    let name = requested.get_filename().and_then(|name| Ok(name.to_str()?)).map_err(text)?;
    let path = files::code_path(name).map_err(|e| e.to_string())?;
    fs::read_to_string(directory.path().join(path)).map_err(|e| format!("the code cannot be read: {e}"))
}

/// The message of a panic.
fn said(panic: &(dyn std::any::Any + Send)) -> &str {
    let owned = panic.downcast_ref::<String>().map(String::as_str);
    owned.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a message")
}
