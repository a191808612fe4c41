//! From a request to generate code to the files with the code.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use crate::error::io;
use crate::request::Request;
use crate::splice::splice;
use crate::Error;

/// Generates code for a request that is at hand already: one that was stored, or that came from the `capnp`
/// program. [`CompilerCommand`](crate::CompilerCommand) runs that program first.
#[derive(Clone, Debug, Default)]
pub struct CodeGenerationCommand {
    output_directory: Option<PathBuf>,
    raw_code_generator_request_path: Option<PathBuf>,
    options: Options,
}

/// What the code depends on besides the request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    pub(crate) default_parent_module: Vec<String>,
    pub(crate) crates: HashMap<u64, String>,
}

/// Generated code by file, relative to the output directory.
pub(crate) type Files = BTreeMap<PathBuf, String>;

impl CodeGenerationCommand {
    /// A command with default options.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the directory to write to. The default is `OUT_DIR`, which cargo sets for build scripts, and
    /// without that the current directory.
    pub fn output_directory<P>(&mut self, path: P) -> &mut Self
    where
        P: AsRef<Path>,
    {
        self.output_directory = Some(path.as_ref().to_path_buf());
        self
    }

    /// Sets the module of your crate that holds the modules of the generated code. The default is the root of
    /// the crate. The annotation `parentModule` of `rust.capnp` overrides it for a schema.
    pub fn default_parent_module(&mut self, default_parent_module: Vec<String>) -> &mut Self {
        self.options.default_parent_module = default_parent_module;
        self
    }

    /// Also stores the request, at `path`, from where [`run`](Self::run) can read it in later builds. The
    /// file is written only if it changes.
    pub fn raw_code_generator_request_path<P>(&mut self, path: P) -> &mut Self
    where
        P: AsRef<Path>,
    {
        self.raw_code_generator_request_path = Some(path.as_ref().to_path_buf());
        self
    }

    /// Says which crate has the code for each of these schema files (their IDs), in place of what was said
    /// before.
    pub fn crates_provide_map(&mut self, map: HashMap<u64, String>) -> &mut Self {
        self.options.crates = map;
        self
    }

    /// Says that the crate `crate_name` has the code for the schema files with these IDs. See
    /// [`CompilerCommand::crate_provides`](crate::CompilerCommand::crate_provides).
    pub fn crate_provides(
        &mut self,
        crate_name: impl Into<String>,
        files: impl IntoIterator<Item = u64>,
    ) -> &mut Self {
        self.options.provide(crate_name.into(), files);
        self
    }

    /// Reads a `CodeGeneratorRequest` and writes the code for each requested file: for `path/foo-bar.capnp`,
    /// `path/foo_bar_capnp.rs`. A file that has the right contents already is not touched.
    pub fn run<T>(&mut self, input: T) -> Result<(), Error>
    where
        T: Read,
    {
        let request = Request::read(input)?;
        let files = generate(&request, &self.options)?;
        let out_dir = || std::env::var_os("OUT_DIR").map(PathBuf::from);
        let directory = self.output_directory.clone().or_else(out_dir).unwrap_or_default();
        for (path, text) in &files {
            write_if_changed(&directory.join(path), text.as_bytes())?;
        }
        match &self.raw_code_generator_request_path {
            Some(path) => write_if_changed(path, request.bytes()),
            None => Ok(()),
        }
    }
}

impl Options {
    pub(crate) fn provide(&mut self, name: String, files: impl IntoIterator<Item = u64>) {
        self.crates.extend(files.into_iter().map(|id| (id, name.clone())));
    }
}

/// Runs the stock generator in a directory of its own, and rewrites each file.
pub(crate) fn generate(request: &Request, options: &Options) -> Result<Files, Error> {
    let names = request.file_names()?;
    let mut sources: BTreeMap<PathBuf, &str> = BTreeMap::new();
    for name in &names {
        if let Some(other) = sources.insert(code_path(name)?, name) {
            let reason = format!("the code for `{other}` has the same name");
            return Err(Error::FileName { file: name.clone(), reason });
        }
    }
    let temporary = tempfile::tempdir().map_err(io("create a directory in", std::env::temp_dir()))?;
    capnpc::codegen::CodeGenerationCommand::new()
        .output_directory(temporary.path())
        .default_parent_module(options.default_parent_module.clone())
        .crates_provide_map(options.crates.clone())
        .run(request.bytes())
        .map_err(|error| Error::Generate { file: None, reason: error.to_string() })?;
    sources
        .into_iter()
        .map(|(path, name)| Ok((path.clone(), rewrite(temporary.path(), &path, name, request)?)))
        .collect()
}

/// The code for one schema, rewritten from the stock generator's.
fn rewrite(stock: &Path, path: &Path, name: &str, request: &Request) -> Result<String, Error> {
    let path = stock.join(path);
    let text = fs::read_to_string(&path).map_err(io("read", &path))?;
    let (capnpc, body) = split_header(&text);
    let body = splice(body, request.reader()?)
        .map_err(|reason| Error::Generate { file: Some(name.to_owned()), reason })?;
    Ok(format!(
        "// @generated by capnpc-threads, a plugin of the Cap'n Proto schema compiler.\n\
         // DO NOT EDIT.\n\
         // source: {name}\n\
         // capnpc-threads crate version: {}\n\
         {capnpc}\n\
         {}",
        env!("CARGO_PKG_VERSION"),
        body.trim_start_matches('\n'),
    ))
}

/// Splits the comments at the top off the stock generator's code, and keeps of them the line with its
/// version.
fn split_header(text: &str) -> (String, &str) {
    let mut kept = String::new();
    let mut body = text;
    while let Some((line, rest)) = body.split_once('\n').filter(|(line, _)| line.starts_with("//")) {
        if line.starts_with("// capnpc crate version:") {
            kept = format!("{line}\n");
        }
        body = rest;
    }
    (kept, body)
}

/// Where the stock generator writes the code for the schema called `name`. A name that leads out of the
/// directory is refused.
fn code_path(name: &str) -> Result<PathBuf, Error> {
    let error = |reason: &str| Error::FileName { file: name.to_owned(), reason: reason.to_owned() };
    let path = Path::new(name);
    if !path.components().all(|part| matches!(part, Component::Normal(_))) {
        return Err(error("it is outside the output directory; set `src_prefix`"));
    }
    let stem =
        path.file_stem().and_then(|stem| stem.to_str()).ok_or_else(|| error("the schema has no name"))?;
    Ok(path.with_file_name(format!("{}_capnp.rs", stem.replace('-', "_"))))
}

pub(crate) fn write_if_changed(path: &Path, contents: &[u8]) -> Result<(), Error> {
    if fs::read(path).is_ok_and(|old| old == contents) {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(io("create", parent))?;
    }
    fs::write(path, contents).map_err(io("write", path))
}
