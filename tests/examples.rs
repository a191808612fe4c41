//! Runs the examples as a reader of the README would, and holds the README to them.
//!
//! `cargo test` builds the examples before it runs this; `cargo test --test examples` alone does not, and runs
//! those that were built last (`cargo build --examples`).

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{channel, Receiver};
use std::thread;
use std::time::Duration;

/// Turns a hang into a failure.
const DEADLINE: Duration = Duration::from_secs(120);

#[test]
fn hello_greets_in_one_and_in_two_processes() {
    assert_eq!(Example::start("hello", &[]).finish(), (0, "Hello, world!\n".into()));
    let server = Server::start("hello");
    let client = Example::start("hello", &["client", &server.address, "Ada"]);
    assert_eq!(client.finish(), (0, "Hello, Ada!\n".into()));
    assert_eq!(Example::start("hello", &["child", "Bob"]).finish(), (0, "Hello, Bob!\n".into()));
    assert_eq!(
        Example::start("hello", &["stdio"]).finish(),
        (0, String::new()),
        "whoever started it is gone"
    );
}

/// Both sides of the contract that `peer` has with the peers of other implementations.
#[test]
fn peer_checks_a_peer() {
    let server = Server::start("peer");
    let (status, output) = Example::start("peer", &["client", &server.address, "check"]).finish();
    assert_eq!(
        (status, output),
        (0, "{\"peer\":\"capnp-threads\",\"mode\":\"check\",\"passed\":37}\n".into())
    );
}

/// Its connections end with its standard input, which `finish` ends.
#[test]
fn peer_holds_idle_connections_and_counts_them() {
    let server = Server::start("peer");
    let (status, output) = Example::start("peer", &["client", &server.address, "idle", "3"]).finish();
    assert_eq!((status, output), (0, "{\"peer\":\"capnp-threads\",\"mode\":\"idle\",\"count\":3}\n".into()));
}

/// Each mode makes as many calls as it should, and says so in a line of JSON.
#[test]
fn peer_measures_each_mode_and_prints_a_line_of_json() {
    let server = Server::start("peer");
    let plain = ["latency", "throughput", "pipeline", "callback", "churn", "stream", "conns", "callers"];
    let plain = plain.map(|mode| (mode, &["20", "3", "100"][..]));
    let holding = ["outstanding", "exports"].map(|mode| (mode, &["20", "3", "100", "200"][..]));
    for (mode, numbers) in plain.into_iter().chain(holding) {
        let client = Example::start("peer", &[&["client", &server.address, mode], numbers].concat());
        let (status, output) = client.finish();
        let head = format!(
            "{{\"peer\":\"capnp-threads\",\"mode\":\"{mode}\",\"count\":20,\"inflight\":3,\"bytes\":100,"
        );
        assert_eq!(status, 0, "{mode}");
        assert!(output.starts_with(&head) && output.ends_with("}\n"), "{mode}: {output}");
        assert_eq!(output.lines().count(), 1, "{mode}: {output}");
        for figure in ["seconds", "per_second", "mb_per_second", "p50_us", "p99_us"] {
            let (_, value) = output.split_once(&format!("\"{figure}\":")).expect(figure);
            let value = value.split([',', '}']).next().expect("split gives one");
            assert!(value.parse::<f64>().is_ok(), "{mode}: {figure} is `{value}`");
        }
    }
}

#[test]
fn calculator_in_one_process_prints_its_results() {
    let (status, output) = Example::start("calculator", &[]).finish();
    assert_eq!(status, 0);
    let steps: Vec<_> = output.lines().skip(2).filter(|line| !line.starts_with(' ')).collect();
    let expected = [
        "literal    123 = 123",
        "nested     123 + 45 - 67 = 101",
        "pipelined  4 * 6, then + 3 and + 5 = 27 and 29",
        "defined    x * y - x at (7, 5) = 28",
        "direct     1 / 4 = 0.25",
        "callback   2 ^ (4 + 6) = 1024",
        "refused    x is refused",
        "reentrant  2 ^ (4 + 6) = 1024",
    ];
    assert_eq!(steps, expected);
}

/// The client prints what `tests/interop` expects of all clients.
#[test]
fn calculator_in_two_processes_prints_the_results_that_interop_expects() {
    let script = read("tests/interop/calculator.sh");
    let expected = script.split_once("expected='").and_then(|(_, rest)| rest.split_once('\'')).unwrap().0;
    let server = Server::start("calculator");
    for _ in 0..2 {
        let client = Example::start("calculator", &["client", &server.address]);
        assert_eq!(client.finish(), (0, format!("{expected}\n")));
    }
}

#[test]
fn chat_in_one_process_prints_what_each_guest_has_heard() {
    let transcript = "    Grace: Is this thing on?
    Ada: I hear you.
    Edsger: So do I, and in the same order, I trust.
    Barbara: How would you know?
    Edsger: We compare notes afterwards.
    Grace: A nanosecond is this long.
    Ada: We can't see your hands, Grace.
    Grace: Then good night, all.
";
    let mut expected = String::new();
    for name in ["Ada", "Barbara", "Edsger", "Grace"] {
        expected += &format!("{name} has heard:\n{transcript}");
    }
    expected += "Left in the room: 0.\n";
    assert_eq!(Example::start("chat", &[]).finish(), (0, expected));
}

#[test]
fn chat_in_three_processes_passes_lines_and_names_on() {
    let server = Server::start("chat");
    let enter = |name| Example::start("chat", &["client", &server.address, name]);
    let mut ada = enter("Ada");
    assert_eq!(ada.line(), "In the room: Ada");
    assert_eq!(enter("Ada").finish(), (1, String::new()), "the name is taken");

    let mut bob = enter("Bob");
    assert_eq!(bob.line(), "In the room: Ada, Bob");
    bob.write("One\nTwo\n");
    assert_eq!(bob.finish(), (0, "Bob: One\nBob: Two\n".into()));
    assert_eq!((ada.line(), ada.line()), ("Bob: One".into(), "Bob: Two".into()));

    let mut bob = enter("Bob");
    assert_eq!(bob.line(), "In the room: Ada, Bob", "the name is free again");
    ada.write("Three\n");
    assert_eq!((ada.line(), bob.line()), ("Ada: Three".into(), "Ada: Three".into()));

    drop(server);
    assert_eq!(ada.finish_without_end_of_input(), (1, String::new()), "she is told that the server is gone");
}

#[test]
fn examples_with_wrong_arguments_exit_with_an_error() {
    for name in ["hello", "calculator", "chat"] {
        assert_eq!(Example::start(name, &["nonsense"]).finish(), (2, String::new()), "{name}");
        assert_eq!(Example::start(name, &["server", "nowhere"]).finish(), (1, String::new()), "{name}");
        let client =
            Example::start(name, &["client", "nowhere", "Ada"][..if name == "calculator" { 2 } else { 3 }]);
        assert_eq!(client.finish(), (1, String::new()), "{name}");
    }
    for args in [&["nonsense"][..], &["client", "nowhere", "nonsense", "1", "1", "1"], &["server", "nowhere"]]
    {
        assert_eq!(Example::start("peer", args).finish(), (1, String::new()), "peer {args:?}");
    }
}

/// How much code of its own a server takes, and a client. Imports do not count; what does is in the README.
#[test]
fn hello_server_has_at_most_15_lines_and_its_client_8() {
    let source = read("examples/hello/main.rs");
    let server = ["struct Greeter", "impl hello::Server for Greeter", "fn serve("];
    let client = ["fn connect(", "fn greet("];
    for (items, most) in [(&server[..], 15), (&client[..], 8)] {
        let lines: Vec<&str> = items.iter().flat_map(|item| item_of(&source, item)).collect();
        assert!(lines.len() <= most, "{} lines, at most {most}:\n{}", lines.len(), lines.join("\n"));
        let shown = read("README.md");
        assert!(lines.iter().all(|line| shown.contains(line)), "README.md shows not all of {items:?}");
    }
}

/// The lines of the item at the root of a module that begins with `head`.
fn item_of<'a>(source: &'a str, head: &str) -> Vec<&'a str> {
    let mut lines = source.lines().skip_while(|line| !line.starts_with(head)).peekable();
    let first = *lines.peek().unwrap_or_else(|| panic!("there is no `{head}`"));
    let last = if first.ends_with(';') { first } else { "}" };
    let end = lines.clone().position(|line| line == last).expect("an item ends") + 1;
    lines.take(end).collect()
}

/// The Rust code in the README stands in the example word for word, where it is compiled and run above; and the
/// schema that it shows is the example's.
#[test]
fn readmes_code_and_schema_stand_in_the_hello_example() {
    let readme = read("README.md");
    let sources = [("rust", "//", "examples/hello/main.rs"), ("capnp", "#", "schema/hello.capnp")];
    for (language, comment, source) in sources {
        let words = |text: &str| -> String {
            let lines = text.lines().map(str::trim).filter(|line| !line.starts_with(comment));
            lines.flat_map(str::split_whitespace).collect::<Vec<_>>().join(" ")
        };
        let whole = words(&read(source));
        let blocks: Vec<_> = readme.split(&format!("```{language}\n")).skip(1).collect();
        assert!(!blocks.is_empty(), "no {language} in README.md");
        for block in blocks {
            let block = block.split_once("```").expect("a block ends").0;
            assert!(whole.contains(&words(block)), "README.md and {source} differ in\n{block}");
        }
    }
    assert!(!readme.contains("```rust,"), "Rust code in README.md that is not compiled");
}

fn read(name: &str) -> String {
    fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// An example that runs. Killed when dropped.
struct Example {
    child: Child,
    stdin: Option<ChildStdin>,
    /// Its output, line by line.
    lines: Receiver<String>,
}

impl Example {
    fn start(name: &str, args: &[&str]) -> Self {
        // target/PROFILE/deps/examples-HASH is this test; target/PROFILE/examples/NAME is that program.
        let this = std::env::current_exe().unwrap();
        let folder = this.parent().unwrap().parent().unwrap().join("examples");
        let program = folder.join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
        let mut command = Command::new(&program);
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command
            .spawn()
            .unwrap_or_else(|e| panic!("{}: {e}; run `cargo build --examples`", program.display()));
        let stdin = child.stdin.take();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        thread::spawn(move || loop {
            let mut line = String::new();
            if output.read_line(&mut line).unwrap() == 0 || sender.send(line).is_err() {
                return;
            }
        });
        Example { child, stdin, lines }
    }

    fn write(&mut self, text: &str) {
        self.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// The next line of its output, without the end.
    fn line(&mut self) -> String {
        self.lines.recv_timeout(DEADLINE).expect("the example prints a line").trim_end().to_owned()
    }

    /// Ends its input, and waits for its exit status and the rest of its output.
    fn finish(mut self) -> (i32, String) {
        self.stdin = None;
        self.finish_without_end_of_input()
    }

    fn finish_without_end_of_input(mut self) -> (i32, String) {
        let mut rest = String::new();
        loop {
            match self.lines.recv_timeout(DEADLINE) {
                Ok(line) => rest += &line,
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break,
                Err(e) => panic!("the example does not end: {e}; it has printed {rest:?}"),
            }
        }
        let status = self.child.wait().unwrap();
        (status.code().expect("no signal"), rest)
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server on a port of the system's choosing.
struct Server {
    _example: Example,
    address: String,
}

impl Server {
    fn start(name: &str) -> Self {
        let mut example = Example::start(name, &["server", "127.0.0.1:0"]);
        let line = example.line();
        let port: u16 =
            line.strip_prefix("listening ").and_then(|p| p.parse().ok()).expect("`listening PORT`");
        Server { _example: example, address: format!("127.0.0.1:{port}") }
    }
}
