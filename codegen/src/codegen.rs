//! From a request to generate code to the files with the code.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::conflicts;
use crate::error::io;
use crate::left_out::LeftOut;
use crate::prepare::{Prepared, Suspect};
use crate::request::Request;
use crate::splice::splice;
use crate::stock;
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
    /// Where schemas may lie whose names in the request are relative.
    pub(crate) sources: Vec<PathBuf>,
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

    /// Says where the schemas lie, for warnings to name lines.
    pub(crate) fn sources(&mut self, sources: Vec<PathBuf>) -> &mut Self {
        self.options.sources = sources;
        self
    }

    /// Reads a `CodeGeneratorRequest` and writes the code for each requested file: for `path/foo-bar.capnp`,
    /// `path/foo_bar_capnp.rs`. A file that has the right contents already is not touched.
    ///
    /// A field, constant or annotation for which no code can be generated is left out, with a warning that names it.
    ///
    /// # Errors
    /// If the input is no request, or there is no code for one of the files. The other files are written then.
    pub fn run<T>(&mut self, input: T) -> Result<(), Error>
    where
        T: Read,
    {
        let request = Request::read(input)?;
        let generated = generate(&request, &self.options)?;
        let out_dir = || std::env::var_os("OUT_DIR").map(PathBuf::from);
        let directory = self.output_directory.clone().or_else(out_dir).unwrap_or_default();
        for (path, text) in &generated.files {
            write_if_changed(&directory.join(path), text.as_bytes())?;
        }
        generated.complete()?;
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

    /// The text of a schema, if it is at hand.
    fn source(&self, name: &str) -> Option<String> {
        let mut given = self.sources.iter().filter(|path| path.ends_with(name));
        given.find_map(|path| fs::read_to_string(path).ok())
    }
}

/// What was made of a request.
pub(crate) struct Generated {
    pub(crate) files: Files,
    /// What the code has no accessors for.
    pub(crate) left_out: Vec<LeftOut>,
    /// Why there is no code for the files that are not among `files`.
    pub(crate) errors: Vec<Error>,
}

impl Generated {
    /// Warns of what was left out, and returns the files, if there are all of them.
    pub(crate) fn complete(self) -> Result<Files, Error> {
        self.left_out.iter().for_each(LeftOut::warn);
        match Error::all(self.errors) {
            Some(error) => Err(error),
            None => Ok(self.files),
        }
    }
}

/// Generates the code for each requested file. What fails for one file does not concern the others.
pub(crate) fn generate(request: &Request, options: &Options) -> Result<Generated, Error> {
    let names = request.file_names()?;
    let prepared = Prepared::of(request.reader()?).map_err(Error::Request)?;
    let mut generated = Generated { files: Files::new(), left_out: Vec::new(), errors: Vec::new() };
    let mut sources = conflicts::Sources::of(request.reader()?, options).map_err(Error::Request)?;
    for (at, name) in (0..).zip(&names) {
        let file = File { prepared: &prepared, at, name, options };
        match sources.add(at, name).and_then(|path| Ok((path, file.generate()?))) {
            Ok((path, (text, left_out))) => {
                generated.files.insert(path, text);
                generated.left_out.extend(left_out);
            }
            Err(error) => generated.errors.push(error),
        }
    }
    Ok(generated)
}

/// A requested file.
struct File<'a> {
    prepared: &'a Prepared,
    at: u32,
    name: &'a str,
    options: &'a Options,
}

impl File<'_> {
    /// The code, and what was left out of it.
    fn generate(&self) -> Result<(String, Vec<LeftOut>), Error> {
        let reason = match self.attempt(&[]) {
            Ok(text) => return Ok((text, Vec::new())),
            Err(reason) => reason,
        };
        let failed = |reason| Error::Generate { file: Some(self.name.to_owned()), reason };
        let suspects = self.prepared.suspects(self.at).map_err(Error::Request)?;
        let mut culprits = Vec::new();
        self.blame(&suspects, &suspects, &mut culprits);
        let left_out: Vec<&Suspect> = culprits.iter().map(|(suspect, _)| *suspect).collect();
        if left_out.is_empty() {
            return Err(failed(reason));
        }
        let text = self.attempt(&left_out).map_err(failed)?;
        let source = self.options.source(self.name);
        let left_out = culprits
            .iter()
            .map(|(suspect, reason)| LeftOut::new(self.name, source.as_deref(), suspect, reason));
        Ok((text, left_out.collect()))
    }

    /// Finds those of `some` with which generation fails although all others are left out. Nothing is found if they
    /// are not to blame.
    fn blame<'s>(&self, all: &'s [Suspect], some: &'s [Suspect], culprits: &mut Vec<(&'s Suspect, String)>) {
        let others: Vec<&Suspect> = all.iter().filter(|suspect| !some.contains(suspect)).collect();
        match (self.attempt(&others), some) {
            (Ok(_), _) | (Err(_), []) => {}
            (Err(reason), [one]) => {
                let without: Vec<&Suspect> = all.iter().collect();
                if self.attempt(&without).is_ok() {
                    culprits.push((one, reason));
                }
            }
            (Err(_), some) => {
                let (left, right) = some.split_at(some.len() / 2);
                self.blame(all, left, culprits);
                self.blame(all, right, culprits);
            }
        }
    }

    /// The code without some members, or why there is none.
    fn attempt(&self, left_out: &[&Suspect]) -> Result<String, String> {
        let stock = stock::run(self.prepared, self.at, left_out, self.options)?;
        let (capnpc, body) = split_header(&stock);
        let body = splice(body, self.prepared, left_out)?;
        Ok(format!(
            "// @generated by capnpc-threads, a plugin of the Cap'n Proto schema compiler.\n\
             // DO NOT EDIT.\n\
             // source: {}\n\
             // capnpc-threads crate version: {}\n\
             {capnpc}\n\
             {}",
            self.name,
            env!("CARGO_PKG_VERSION"),
            body.trim_start_matches('\n'),
        ))
    }
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

pub(crate) fn write_if_changed(path: &Path, contents: &[u8]) -> Result<(), Error> {
    if fs::read(path).is_ok_and(|old| old == contents) {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(io("create", parent))?;
    }
    fs::write(path, contents).map_err(io("write", path))
}
