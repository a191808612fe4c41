//! Files whose code would be one and the same module.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use capnp::schema_capnp::{code_generator_request as request, node};

use crate::codegen::Options;
use crate::prepare::{by_id, files};
use crate::Error;

/// The requested files so far, by where their code is written and by the module that it is.
pub(crate) struct Sources<'a> {
    request: request::Reader<'a>,
    nodes: HashMap<u64, node::Reader<'a>>,
    options: &'a Options,
    paths: BTreeMap<PathBuf, String>,
    modules: HashMap<String, String>,
}

impl<'a> Sources<'a> {
    pub(crate) fn of(request: request::Reader<'a>, options: &'a Options) -> capnp::Result<Self> {
        let nodes = by_id(request)?;
        let mut modules = HashMap::new();
        let requested: Vec<u64> = request.get_requested_files()?.iter().map(|file| file.get_id()).collect();
        for (id, node) in &nodes {
            // What a requested file names of a file that is not requested must be in a module of that name.
            let elsewhere = requested.contains(id) || options.crates.contains_key(id);
            if matches!(node.which()?, node::File(())) && !elsewhere && has_types(&nodes, *node)? {
                let name = node.get_display_name()?.to_str()?;
                let module = files::module(name, Some(node), &options.default_parent_module)?;
                modules.insert(module, name.to_owned());
            }
        }
        Ok(Sources { request, nodes, options, paths: BTreeMap::new(), modules })
    }

    /// Adds a requested file. Returns the path of its code.
    pub(crate) fn add(&mut self, at: u32, name: &str) -> Result<PathBuf, Error> {
        let refused = |reason| Err(Error::FileName { file: name.to_owned(), reason });
        let path = files::code_path(name)?;
        if let Some(other) = self.paths.get(&path) {
            return refused(format!("the code for `{other}` has the same name"));
        }
        let id = self.request.get_requested_files().map_err(Error::Request)?.get(at).get_id();
        let default = &self.options.default_parent_module;
        let module = files::module(name, self.nodes.get(&id), default).map_err(Error::Request)?;
        if let Some(other) = self.modules.get(&module) {
            return refused(format!(
                "the code for `{other}` is the same module, `crate::{module}`; give one of them another with the \
                 annotation `parentModule` of rust.capnp, or another name"
            ));
        }
        self.paths.insert(path.clone(), name.to_owned());
        self.modules.insert(module, name.to_owned());
        Ok(path)
    }
}

/// Whether a request has a file's types. Of an imported file it has what is used, and of most files for annotations
/// that is nothing else.
fn has_types(nodes: &HashMap<u64, node::Reader<'_>>, file: node::Reader<'_>) -> capnp::Result<bool> {
    for nested in file.get_nested_nodes()? {
        let Some(node) = nodes.get(&nested.get_id()) else { continue };
        if matches!(node.which()?, node::Struct(_) | node::Enum(_) | node::Interface(_)) {
            return Ok(true);
        }
    }
    Ok(false)
}
