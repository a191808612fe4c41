//! The program `capnpc-rust-threads`.

mod common;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use capnpc_threads::CodeGenerationCommand;
use common::{directory, files, STORED};

/// Runs the program in `directory`, with `input` as its standard input.
fn run(directory: &Path, arguments: &[&str], input: &[u8]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_capnpc-rust-threads"));
    finish(command.current_dir(directory).args(arguments).env_remove("OUT_DIR"), input)
}

fn finish(command: &mut Command, input: &[u8]) -> Output {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    // The program may end without reading all of its input.
    let _ = child.stdin.take().expect("a pipe").write_all(input);
    child.wait_with_output().expect("the program ends")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("a text")
}

#[test]
fn a_plugin_writes_code_into_its_directory() {
    let (plugin, library) = (directory(), directory());
    let output = run(plugin.path(), &[], STORED);
    assert!(output.status.success() && output.stderr.is_empty(), "{}", text(&output.stderr));
    CodeGenerationCommand::new().output_directory(library.path()).run(STORED).unwrap();
    assert_eq!(files(plugin.path()), files(library.path()));
}

#[test]
fn a_plugin_ignores_out_dir() {
    let (plugin, other) = (directory(), directory());
    let mut command = Command::new(env!("CARGO_BIN_EXE_capnpc-rust-threads"));
    let output = finish(command.current_dir(plugin.path()).env("OUT_DIR", other.path()), STORED);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(files(plugin.path()).len(), 2);
    assert!(files(other.path()).is_empty());
}

#[test]
fn a_plugin_without_a_request_fails() {
    let out = directory();
    let output = run(out.path(), &[], b"");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).starts_with("capnpc-rust-threads: cannot read the request"));
    assert!(files(out.path()).is_empty());
}

#[test]
fn help_and_version_are_printed() {
    let out = directory();
    for arguments in [&["--help"][..], &["-h"], &["store", "--help"]] {
        let output = run(out.path(), arguments, b"");
        assert!(output.status.success());
        assert!(text(&output.stdout).contains("capnp compile -orust-threads"));
    }
    let output = run(out.path(), &["--version"], b"");
    assert_eq!(text(&output.stdout), format!("capnpc-rust-threads {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn wrong_arguments_fail() {
    let out = directory();
    for arguments in [&["--shout"][..], &["zoo.capnp"], &["store", "zoo.capnp"], &["store", "-o", "x"]] {
        let output = run(out.path(), arguments, STORED);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(text(&output.stderr).contains("--help"), "{}", text(&output.stderr));
    }
    assert!(files(out.path()).is_empty());
}

#[cfg(unix)]
mod store {
    use super::*;
    use common::{change_field, changed, compiler, compiler_of};
    use std::fs;

    const OPTIONS: [&str; 4] = ["-o", "zoo.request", "--src-prefix=.", "zoo.capnp"];

    /// Runs `store` in `directory`, with the `capnp` there.
    fn store(directory: &Path, check: bool) -> Output {
        fs::write(directory.join("zoo.capnp"), "").expect("a schema");
        let mut command = Command::new(env!("CARGO_BIN_EXE_capnpc-rust-threads"));
        command.current_dir(directory).arg("store").args(check.then_some("--check")).args(OPTIONS);
        let path = std::env::var_os("PATH").unwrap_or_default();
        let all = std::iter::once(directory.to_path_buf()).chain(std::env::split_paths(&path));
        finish(command.env("PATH", std::env::join_paths(all).expect("a PATH")), b"")
    }

    #[test]
    fn stored_request_is_current() {
        let out = directory();
        compiler_of(out.path(), STORED);
        let output = store(out.path(), false);
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert_eq!(fs::read(out.path().join("zoo.request")).unwrap(), STORED);
        let output = store(out.path(), true);
        assert!(output.status.success() && output.stderr.is_empty(), "{}", text(&output.stderr));
        let arguments = fs::read_to_string(out.path().join("arguments")).unwrap();
        assert_eq!(arguments, "compile\n-o-\n--src-prefix=.\nzoo.capnp\n");
    }

    #[test]
    fn another_version_of_the_compiler_makes_no_difference() {
        let out = directory();
        fs::write(out.path().join("zoo.request"), STORED).unwrap();
        compiler_of(out.path(), &changed(|request| request.init_capnp_version().set_major(7)));
        let output = store(out.path(), true);
        assert!(output.status.success(), "{}", text(&output.stderr));
    }

    #[test]
    fn outdated_request_is_reported_with_the_command_that_renews_it() {
        let out = directory();
        let old = changed(|request| {
            let mut nodes = request.get_nodes().unwrap();
            for i in 0..nodes.len() {
                let mut node = nodes.reborrow().get(i);
                let name = node.reborrow().get_display_name().unwrap().to_string().unwrap();
                node.set_display_name(name.replace("Diet", "Food"));
            }
        });
        fs::write(out.path().join("zoo.request"), &old).unwrap();
        compiler_of(out.path(), STORED);
        let output = store(out.path(), true);
        assert_eq!(output.status.code(), Some(1));
        let said = text(&output.stderr);
        assert!(
            said.contains("`zoo.request` is not current:\n  sub/animal_capnp.rs: the code differs\n"),
            "{said}"
        );
        let renewal = format!("capnpc-rust-threads store {}\n", OPTIONS.join(" "));
        assert!(said.ends_with(&renewal), "{said}");
        assert_eq!(fs::read(out.path().join("zoo.request")).unwrap(), old);
    }

    #[test]
    fn missing_request_is_not_current() {
        let out = directory();
        compiler_of(out.path(), STORED);
        for contents in [None, Some("no request")] {
            if let Some(contents) = contents {
                fs::write(out.path().join("zoo.request"), contents).unwrap();
            }
            let output = store(out.path(), true);
            assert_eq!(output.status.code(), Some(1));
            assert!(text(&output.stderr).contains("Renew it with:"), "{}", text(&output.stderr));
        }
    }

    #[test]
    fn a_field_that_is_not_supported_is_named_with_its_line() {
        let out = directory();
        let schema = include_str!("schema/zoo-keeper.capnp");
        let line = schema.lines().position(|line| line.contains("hours @1")).unwrap() + 1;
        let request = changed(|request| {
            change_field(request, "zoo-keeper.capnp:Shift", "hours", |mut slot| {
                slot.reborrow().init_type().init_struct().set_type_id(0xbad);
                slot.init_default_value().init_struct();
            });
        });
        fs::write(out.path().join("zoo-keeper.capnp"), schema).unwrap();
        compiler_of(out.path(), &request);
        let mut command = Command::new(env!("CARGO_BIN_EXE_capnpc-rust-threads"));
        command.current_dir(out.path()).env_remove("OUT_DIR");
        let path = std::env::var_os("PATH").unwrap_or_default();
        let all = std::iter::once(out.path().to_path_buf()).chain(std::env::split_paths(&path));
        command.env("PATH", std::env::join_paths(all).unwrap());
        let output = finish(command.args(["store", "-o", "zoo.request", "zoo-keeper.capnp"]), b"");
        let said = text(&output.stderr);
        assert!(output.status.success(), "{said}");
        let wanted = format!(
            "warning: zoo-keeper.capnp:{line}: no code is generated for the field `hours` of `Shift`: "
        );
        assert!(said.contains(&wanted), "{said}");
        assert_eq!(said.matches("warning: ").count(), 1, "{said}");
        // The plugin does not know where the schema lies.
        let output = run(out.path(), &[], &request);
        let said = text(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert!(said.contains("zoo-keeper.capnp: no code is generated for the field `hours`"), "{said}");
    }

    #[test]
    fn nothing_is_stored_if_the_compiler_fails() {
        let out = directory();
        compiler(out.path(), "failing");
        let output = store(out.path(), false);
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).ends_with(": Not defined: Missing\n"), "{}", text(&output.stderr));
        assert!(!out.path().join("zoo.request").exists());
    }
}
