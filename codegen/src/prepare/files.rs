//! Names of schema files, and the modules of their code.

use std::path::{Component, Path, PathBuf};

use capnp::schema_capnp::{code_generator_request as request, node, value};

use super::types;
use crate::Error;

/// The annotation `parentModule` of `rust.capnp`.
const PARENT_MODULE: u64 = 0xabee_386c_d145_0364;

/// Where the code for the schema called `name` is written. A name that leads out of the directory is refused.
pub(crate) fn code_path(name: &str) -> Result<PathBuf, Error> {
    let error = |reason: &str| Error::FileName { file: name.to_owned(), reason: reason.to_owned() };
    let path = Path::new(name);
    if !path.components().all(|part| matches!(part, Component::Normal(_))) {
        return Err(error("it is outside the output directory; set `src_prefix`"));
    }
    let stem = stem(name).ok_or_else(|| error("the schema has no name"))?;
    Ok(path.with_file_name(format!("{stem}_capnp.rs")))
}

/// The file's name without its folder and extension, as part of the name of a module.
fn stem(name: &str) -> Option<String> {
    let stem = Path::new(name).file_stem()?.to_str()?;
    let mut ident: String = stem.chars().map(|c| if c.is_alphanumeric() { c } else { '_' }).collect();
    if ident.starts_with(|c: char| c.is_numeric()) {
        ident.insert(0, '_');
    }
    Some(ident)
}

/// The module in which the stock generator expects the code for a file, from the root of the crate.
pub(crate) fn module(
    name: &str,
    file: Option<&node::Reader<'_>>,
    default: &[String],
) -> capnp::Result<String> {
    let mut module = default.to_vec();
    if let Some(file) = file {
        for annotation in file.get_annotations()? {
            if let (PARENT_MODULE, value::Text(parent)) =
                (annotation.get_id(), annotation.get_value()?.which()?)
            {
                module = parent?.to_str()?.split("::").map(str::to_owned).collect();
            }
        }
    }
    module.push(format!("{}_capnp", stem(name).unwrap_or_default()));
    Ok(module.join("::"))
}

/// Writes the requested files of a prepared request: with names that make modules, and with all files as imports.
pub(super) fn write(original: request::Reader<'_>, copy: request::Builder<'_>) -> capnp::Result<()> {
    let requested = original.get_requested_files()?;
    let mut names = Vec::new();
    for node in original.get_nodes()? {
        if let node::File(()) = node.which()? {
            let file = requested.iter().find(|file| file.get_id() == node.get_id());
            let name = match file {
                Some(file) => file.get_filename()?,
                None => node.get_display_name()?,
            };
            names.push((node.get_id(), name.to_string()?));
        }
    }
    names.push((types::FILE, types::MODULE.trim_end_matches("_capnp").to_owned()));
    let mut copies = copy.init_requested_files(requested.len());
    for (at, file) in requested.iter().enumerate() {
        let mut copy = copies.reborrow().get(at as u32);
        let name = file.get_filename()?.to_str()?;
        let renamed = Path::new(name).with_file_name(format!("{}.capnp", stem(name).unwrap_or_default()));
        copy.set_id(file.get_id());
        copy.set_filename(renamed.to_string_lossy());
        let others: Vec<_> = names.iter().filter(|(id, _)| *id != file.get_id()).collect();
        let mut imports = copy.init_imports(others.len() as u32);
        for (at, (id, name)) in others.into_iter().enumerate() {
            let mut import = imports.reborrow().get(at as u32);
            import.set_id(*id);
            import.set_name(format!("{}.capnp", stem(name).unwrap_or_default()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_become_names_of_modules() {
        let module = |name| code_path(name).expect("a path").display().to_string();
        assert_eq!(module("foo.capnp"), "foo_capnp.rs");
        assert_eq!(module("a.b/foo-bar.capnp"), "a.b/foo_bar_capnp.rs");
        assert_eq!(module("a.b.capnp"), "a_b_capnp.rs");
        assert_eq!(module("c++.capnp"), "c___capnp.rs");
        assert_eq!(module("x/2 fa.capnp"), "x/_2_fa_capnp.rs");
    }
}
