//! What can go wrong, in words for whoever runs a build script.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;

/// Why no code was generated.
///
/// Build scripts mostly meet an error through `unwrap`, `expect`, or a `main` that returns it. All of these
/// print its `Debug` form, so that is the same readable text as its `Display` form.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The `capnp` program could not be started.
    #[error("cannot run the Cap'n Proto compiler `{}`: {error}\n{INSTALL}", .executable.display())]
    MissingCompiler {
        /// The program that was to run.
        executable: PathBuf,
        /// Why it did not.
        error: io::Error,
    },

    /// The `capnp` program did not tell its version, so it is probably another program.
    #[error("`{} --version` failed ({status}): is it the Cap'n Proto compiler?\n{INSTALL}", .executable.display())]
    NoVersion {
        /// The program that ran.
        executable: PathBuf,
        /// How it ended.
        status: ExitStatus,
    },

    /// The `capnp` program is older than the oldest version that will do.
    #[error("the Cap'n Proto compiler `{}` is of version {found}, but {} or newer is needed\n{INSTALL}",
        .executable.display(), crate::compiler::OLDEST)]
    OldCompiler {
        /// The program that was found.
        executable: PathBuf,
        /// Its version.
        found: String,
    },

    /// A schema file cannot be read.
    #[error("cannot read the schema `{}`{}: {error}", .path.display(), in_directory())]
    MissingSchema {
        /// The schema, as it was given.
        path: PathBuf,
        /// Why it cannot be read.
        error: io::Error,
    },

    /// The `capnp` program refused the schemas.
    #[error("`{} compile` failed ({status}):\n{}", .executable.display(), .messages.trim_end())]
    Compile {
        /// The program that ran.
        executable: PathBuf,
        /// How it ended.
        status: ExitStatus,
        /// What it said: the errors in the schemas, with their places.
        messages: String,
    },

    /// There is no place to write to.
    #[error(
        "there is no directory to write to: `OUT_DIR` is not set, as it is in a build script\n\
        Give one with `output_path`."
    )]
    NoOutputPath,

    /// What was to be a request to generate code is none.
    #[error(
        "cannot read the request to generate code (a `CodeGeneratorRequest`, as the Cap'n Proto compiler \
        writes it): {0}"
    )]
    Request(capnp::Error),

    /// The code of a requested file would land outside the output directory, or on that of another file.
    #[error("cannot name the code for the schema `{file}`: {reason}")]
    FileName {
        /// The name of the schema in the request.
        file: String,
        /// What is wrong with it.
        reason: String,
    },

    /// The generator failed.
    #[error("cannot generate code{}: {reason}", .file.as_ref().map(|f| format!(" for `{f}`")).unwrap_or_default())]
    Generate {
        /// The schema concerned, if that is known.
        file: Option<String>,
        /// What the generator said.
        reason: String,
    },

    /// There is no code for several files. For the others there is.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Several(Vec<Error>),

    /// A file or a directory cannot be read or written.
    #[error("cannot {action} `{}`: {error}", .path.display())]
    Io {
        /// What was to be done, such as "write".
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why it failed.
        error: io::Error,
    },
}

impl Error {
    /// All of them as one, if there are any.
    pub(crate) fn all(mut errors: Vec<Error>) -> Option<Error> {
        match errors.len() {
            0 | 1 => errors.pop(),
            _ => Some(Error::Several(errors)),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How to get the compiler.
const INSTALL: &str = "\
Install it:
  Debian, Ubuntu:  apt install capnproto
  macOS:           brew install capnp
  Windows:         choco install capnproto, or the zip from https://capnproto.org/install.html
or build without it, from a request stored by `capnpc-rust-threads store` \
(see capnpc_threads::CodeGenerationCommand).";

fn in_directory() -> String {
    std::env::current_dir().map(|d| format!(" (in directory `{}`)", d.display())).unwrap_or_default()
}

/// For `map_err`: an error with what was to be done, and with what file.
pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Error {
    let path = path.into();
    move |error| Error::Io { action, path, error }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boxed(error: Error) -> Box<dyn std::error::Error + Send + Sync> {
        error.into()
    }

    #[test]
    fn debug_output_is_readable() {
        let error = boxed(Error::OldCompiler { executable: "capnp".into(), found: "0.7.0".into() });
        let text = format!("{error:?}");
        assert_eq!(text, error.to_string());
        let (first, rest) = text.split_once('\n').expect("two lines");
        assert_eq!(first, "the Cap'n Proto compiler `capnp` is of version 0.7.0, but 0.8 or newer is needed");
        assert!(rest.contains("\n  macOS:           brew install capnp\n"), "{rest}");
    }
}
