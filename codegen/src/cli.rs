//! The program `capnpc-rust-threads`: a plugin of `capnp compile`, and the keeper of stored requests.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs, io};

use lexopt::prelude::*;

use crate::codegen::{generate, write_if_changed, CodeGenerationCommand, Files, Options};
use crate::compiler::Schemas;
use crate::request::Request;
use crate::Error;

const HELP: &str = "\
Generates Rust code for Cap'n Proto schemas, for the crate capnp-threads.

usage: capnp compile -orust-threads[:DIR] SCHEMA...
       capnpc-rust-threads store [OPTIONS] -o FILE SCHEMA...
       capnpc-rust-threads store --check [OPTIONS] -o FILE SCHEMA...

Without arguments this is the plugin that `capnp compile` starts: it reads a
CodeGeneratorRequest from standard input, and writes code into the current directory.

`store` runs `capnp compile` and stores the request that it makes of the schemas in FILE,
from which a build script can generate the code without the program `capnp`:
    capnpc_threads::CodeGenerationCommand::new().run(std::fs::File::open(FILE)?)
`store --check` writes nothing. It fails if the code generated from FILE differs from that
of the schemas as they are now.

options of `store`:
  -o FILE                   where the request is stored
      --check               only check that FILE is current
      --src-prefix=PREFIX   remove PREFIX from the names of schemas
  -I, --import-path=DIR     look in DIR for imports with absolute names
      --no-standard-import  look for imports in no other directory

  -h, --help                print this help
  -V, --version             print the version
";

enum Task {
    Help,
    Version,
    Plugin,
    Store { schemas: Schemas, file: PathBuf, check: bool },
}

/// Runs the program with the arguments that it was started with.
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = env::args_os().skip(1).collect();
    let result = match parse(&arguments) {
        Ok(Task::Help) => {
            print!("{HELP}");
            Ok(())
        }
        Ok(Task::Version) => {
            println!("capnpc-rust-threads {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
        Ok(Task::Plugin) if io::stdin().is_terminal() => {
            eprint!("{HELP}");
            return ExitCode::from(2);
        }
        Ok(Task::Plugin) => CodeGenerationCommand::new().output_directory("").run(io::stdin().lock()),
        Ok(Task::Store { schemas, file, check: false }) => store(&schemas, &file),
        Ok(Task::Store { schemas, file, check: true }) => match check(&schemas, &file) {
            Ok(differences) if differences.is_empty() => Ok(()),
            Ok(differences) => {
                eprintln!("capnpc-rust-threads: `{}` is not current:", file.display());
                differences.iter().for_each(|difference| eprintln!("  {difference}"));
                eprintln!("Renew it with:\n  {}", renewal(&arguments));
                return ExitCode::FAILURE;
            }
            Err(error) => Err(error),
        },
        Err(error) => {
            eprintln!("capnpc-rust-threads: {error}\nTry `capnpc-rust-threads --help`.");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("capnpc-rust-threads: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(arguments: &[OsString]) -> Result<Task, lexopt::Error> {
    let mut parser = lexopt::Parser::from_args(arguments);
    match parser.next()? {
        None => Ok(Task::Plugin),
        Some(Short('h') | Long("help")) => Ok(Task::Help),
        Some(Short('V') | Long("version")) => Ok(Task::Version),
        Some(Value(command)) if command == "store" => parse_store(parser),
        Some(other) => Err(other.unexpected()),
    }
}

fn parse_store(mut parser: lexopt::Parser) -> Result<Task, lexopt::Error> {
    let mut schemas = Schemas::default();
    let (mut file, mut check) = (None, false);
    while let Some(argument) = parser.next()? {
        match argument {
            Short('o') => file = Some(parser.value()?.into()),
            Short('I') | Long("import-path") => schemas.import_paths.push(parser.value()?.into()),
            Long("src-prefix") => schemas.src_prefixes.push(parser.value()?.into()),
            Long("no-standard-import") => schemas.no_standard_import = true,
            Long("check") => check = true,
            Short('h') | Long("help") => return Ok(Task::Help),
            Value(path) => schemas.files.push(path.into()),
            other => return Err(other.unexpected()),
        }
    }
    let file = file.ok_or("`store` needs `-o FILE`")?;
    if schemas.files.is_empty() {
        return Err("`store` needs a schema".into());
    }
    Ok(Task::Store { schemas, file, check })
}

/// The request is stored only if code can be generated from it.
fn store(schemas: &Schemas, file: &Path) -> Result<(), Error> {
    let request = Request::read(&schemas.compile()?[..])?;
    generate(&request, &options(schemas))?.complete()?;
    write_if_changed(file, request.bytes())
}

/// What is out of date in the stored request: nothing if the same code comes of it as of the schemas.
fn check(schemas: &Schemas, file: &Path) -> Result<Vec<String>, Error> {
    let current = code(&schemas.compile()?[..], &options(schemas))?;
    let stored = match fs::File::open(file) {
        Ok(stored) => code(stored, &Options::default()),
        Err(error) => return Ok(vec![format!("it cannot be opened: {error}")]),
    };
    Ok(match stored {
        Ok(stored) => compare(&stored, &current),
        Err(error) => vec![error.to_string()],
    })
}

fn code(request: impl io::Read, options: &Options) -> Result<Files, Error> {
    generate(&Request::read(request)?, options)?.complete()
}

fn options(schemas: &Schemas) -> Options {
    Options { sources: schemas.files.clone(), ..Options::default() }
}

fn compare(stored: &Files, current: &Files) -> Vec<String> {
    let gone = stored.keys().filter(|path| !current.contains_key(*path));
    let gone = gone.map(|path| format!("{}: no schema given now makes this file", path.display()));
    let changed = current.iter().filter_map(|(path, text)| match stored.get(path) {
        None => Some(format!("{}: nothing is stored for this file", path.display())),
        Some(old) if old != text => Some(format!("{}: the code differs", path.display())),
        Some(_) => None,
    });
    gone.chain(changed).collect()
}

/// The command that was run, without `--check`.
fn renewal(arguments: &[OsString]) -> String {
    let arguments = arguments.iter().filter(|argument| *argument != "--check");
    let quoted = arguments.map(|argument| quote(&argument.to_string_lossy()));
    std::iter::once("capnpc-rust-threads".to_owned()).chain(quoted).collect::<Vec<_>>().join(" ")
}

/// An argument as a shell takes it.
fn quote(argument: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_=+./:,@%\\".contains(c);
    if !argument.is_empty() && argument.chars().all(plain) {
        argument.to_owned()
    } else {
        format!("'{}'", argument.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn store_reads_its_options() {
        let line =
            "store --src-prefix=a --src-prefix b -Ic -I d --import-path=e --no-standard-import -o f g h";
        let Ok(Task::Store { schemas, file, check }) = parse(&arguments(line)) else { panic!("not `store`") };
        let paths = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
        assert_eq!(schemas.src_prefixes, paths(&["a", "b"]));
        assert_eq!(schemas.import_paths, paths(&["c", "d", "e"]));
        assert_eq!(schemas.files, paths(&["g", "h"]));
        assert!(schemas.no_standard_import && !check);
        assert_eq!(file, Path::new("f"));
    }

    #[test]
    fn wrong_arguments_are_refused() {
        let error = |line| match parse(&arguments(line)) {
            Ok(_) => panic!("`{line}` is accepted"),
            Err(error) => error.to_string(),
        };
        assert_eq!(error("store a.capnp"), "`store` needs `-o FILE`");
        assert_eq!(error("store -o a.request"), "`store` needs a schema");
        assert_eq!(error("store --shout"), "invalid option '--shout'");
        assert!(error("a.capnp").contains("a.capnp"));
    }

    #[test]
    fn the_command_that_renews() {
        let mut line = arguments("store --check --src-prefix=x -o y.request");
        line.push("it's a schema.capnp".into());
        let wanted = r"capnpc-rust-threads store --src-prefix=x -o y.request 'it'\''s a schema.capnp'";
        assert_eq!(renewal(&line), wanted);
    }

    #[test]
    fn differences() {
        let files = |all: &[(&str, &str)]| {
            all.iter().map(|(path, text)| (PathBuf::from(path), text.to_string())).collect::<Files>()
        };
        let stored = files(&[("a", "1"), ("b", "1"), ("c", "1")]);
        assert!(compare(&stored, &stored).is_empty());
        let found = compare(&stored, &files(&[("b", "1"), ("c", "2"), ("d", "1")]));
        assert_eq!(
            found,
            [
                "a: no schema given now makes this file",
                "c: the code differs",
                "d: nothing is stored for this file"
            ]
        );
    }
}
