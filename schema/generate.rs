//! Writes the Rust code that is committed for our schemas. Run through `schema/generate.sh`.
//!
//! Usage: `generate ROOT OUT`: reads the schemas of the repository at `ROOT`, writes `OUT/src/generated/*.rs` and
//! the like.

use std::error::Error;
use std::path::Path;
use std::{env, fs};

use capnpc_threads::CompilerCommand;

/// The schemas of the library itself, which reads and writes them as data. Their code is the stock one.
const LIBRARY: &[&str] = &["persistent", "rpc", "rpc-twoparty"];
/// The schemas of the examples, whose interfaces are served and called with the library.
const EXAMPLES: &[&str] = &["bench", "calculator", "chat", "hello"];
/// The schema of the guide's programs, whose code stands at the root of each.
const GUIDE: &[&str] = &["archive"];

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = env::args().skip(1).collect();
    let [root, out] = args.as_slice() else {
        return Err("usage: generate ROOT OUT".into());
    };
    let (root, out) = (Path::new(root), Path::new(out));
    library(&root.join("schema"), &out.join("src/generated"))?;
    examples(&root.join("schema"), &out.join("examples/generated"))?;
    guide(&root.join("schema"), &out.join("guide/generated"))
}

fn examples(schemas: &Path, out: &Path) -> Result<(), Box<dyn Error>> {
    Ok(command(schemas, out, EXAMPLES).default_parent_module(vec!["generated".into()]).run()?)
}

fn guide(schemas: &Path, out: &Path) -> Result<(), Box<dyn Error>> {
    Ok(command(schemas, out, GUIDE).run()?)
}

fn command(schemas: &Path, out: &Path, names: &[&str]) -> CompilerCommand {
    let mut command = CompilerCommand::new();
    command.src_prefix(schemas).output_path(out);
    for name in names {
        command.file(schemas.join(format!("{name}.capnp")));
    }
    command
}

fn library(schemas: &Path, out: &Path) -> Result<(), Box<dyn Error>> {
    let mut command = capnpc::CompilerCommand::new();
    command.src_prefix(schemas).output_path(out).default_parent_module(vec!["generated".into()]);
    for name in LIBRARY {
        command.file(schemas.join(format!("{name}.capnp")));
    }
    command.run()?;
    for name in LIBRARY {
        let file = out.join(format!("{}_capnp.rs", name.replace('-', "_")));
        let text = fs::read_to_string(&file)?;
        fs::write(&file, rename_annotation(&sort_alias_parameters(drop_tool_version(&text))))?;
    }
    Ok(())
}

/// Removes the line that names the version of the `capnp` tool, so that another version whose output is the
/// same otherwise makes no difference.
fn drop_tool_version(text: &str) -> String {
    let kept = text.lines().filter(|line| !line.starts_with("// capnp binary version:"));
    kept.flat_map(|line| [line, "\n"]).collect()
}

/// Renames the module of the annotation `persistent`, since the interface `Persistent` has one of that name.
fn rename_annotation(text: &str) -> String {
    text.replace("\npub mod persistent {\n", "\npub mod persistent_annotation {\n")
}

/// Sorts the type parameters of aliases for the params and results of methods. `capnpc` takes them out of a
/// hash set, so their order changes from run to run.
fn sort_alias_parameters(mut text: String) -> String {
    let aliases: Vec<String> = text
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("pub type "))
        .filter_map(|alias| alias.split_once(",> ="))
        .map(|(alias, _)| alias.to_string())
        .collect();
    for alias in aliases {
        if let Some((name, parameters)) = alias.split_once('<') {
            let mut sorted: Vec<&str> = parameters.split(',').collect();
            sorted.sort_unstable();
            text = text.replace(&format!("{alias},>"), &format!("{name}<{},>", sorted.join(",")));
        }
    }
    text
}
