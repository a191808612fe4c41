//! A vat in a child process, at the other end of its stdin and stdout. The child is this test program itself.

use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use capnp_threads::transport::Transport;
use capnp_threads::{Call, Capability, Client, Connection, ExceptionKind, Limits, Result, Stream, Vat};

use crate::support::{
    ask, echo, object, reply, reply_cap, request, send, text, unexpected, with_cap, Soon, TEST,
};

/// Set in the child.
const ROLE: &str = "CAPNP_THREADS_TEST_CHILD";
/// The test that is both.
const BOTH: &str = "child::parent_and_child_call_each_other";

const ECHO: u16 = 0;
const HANG: u16 = 1;
const CALL_BACK: u16 = 2;
const NEXT: u16 = 3;

fn served() -> Client {
    object(|call: &mut Call| match call.method_id() {
        ECHO => {
            let answer = text(call)?;
            reply(call, &answer)
        }
        HANG => {
            call.allow_next();
            call.cancellation().wait()
        }
        CALL_BACK => {
            let answer = ask(&crate::support::cap(call)?, 0, "from the child")?;
            reply(call, &answer)
        }
        NEXT => {
            reply_cap(call, &served());
            Ok(())
        }
        _ => unexpected(call),
    })
}

/// The child: serves its parent until that goes away.
fn serve() {
    // The test harness writes to stdout, so the real one was moved to 3.
    let to_parent = File::options().write(true).open("/dev/fd/3").unwrap();
    let transport = Transport::pair(std::io::stdin(), to_parent, &Limits::default());
    let connection = Vat::new().bootstrap(served()).over(transport).unwrap();
    let why = connection.wait_closed().unwrap();
    assert_eq!(why.kind(), ExceptionKind::Disconnected);
}

fn start() -> (Child, Connection) {
    let mut child = Command::new("sh")
        .args(["-c", r#"exec "$0" "$@" 3>&1 >/dev/null"#])
        .arg(std::env::current_exe().unwrap())
        .args([BOTH, "--exact"])
        .env(ROLE, "child")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let transport = Transport::child(&mut child, &Limits::default()).unwrap();
    let connection = Vat::new().over(transport).unwrap();
    (child, connection)
}

#[test]
fn parent_and_child_call_each_other() {
    if std::env::var_os(ROLE).is_some() {
        return serve();
    }
    let (mut child, connection) = start();
    assert_eq!(connection.peer().to_string(), format!("process {}", child.id()));
    let theirs = connection.bootstrap::<Client>();
    assert_eq!(ask(&theirs, ECHO, "hello").unwrap(), "hello");
    let next = theirs.request(TEST, NEXT).send().pipeline.client();
    assert_eq!(ask(&next, ECHO, "ahead").unwrap(), "ahead");
    let answer = with_cap(&theirs, CALL_BACK, &echo()).send().soon().unwrap();
    assert_eq!(crate::support::said(&answer), "from the child");
    connection.close(Duration::from_secs(30)).unwrap();
    assert!(child.wait().unwrap().success(), "the child sees the end and exits");
}

/// Each of these waits for something when the child is killed.
#[test]
fn a_child_that_is_killed_ends_every_wait() {
    let waits: [fn(&Connection) -> Result<()>; 5] =
        [hanging, pipelined, streaming, waiting_in_a_promise, waiting_for_the_end];
    for wait in waits {
        let (mut child, connection) = start();
        ask(&connection.bootstrap::<Client>(), ECHO, "ready").unwrap();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| wait(&connection));
            assert!(crate::support::wires::reaches(&connection, |tables| tables.questions() > 0));
            child.kill().unwrap();
            let error = waiter.join().unwrap().unwrap_err();
            assert_eq!(error.kind(), ExceptionKind::Disconnected, "{error}");
        });
        assert!(!child.wait().unwrap().success());
        assert!(!connection.is_connected());
        assert_eq!(
            ask(&connection.bootstrap::<Client>(), ECHO, "late").unwrap_err().kind(),
            ExceptionKind::Disconnected
        );
    }
}

fn hanging(connection: &Connection) -> Result<()> {
    send(&connection.bootstrap::<Client>(), HANG, "").soon().map(drop)
}

fn pipelined(connection: &Connection) -> Result<()> {
    let hanging = send(&connection.bootstrap::<Client>(), HANG, "");
    send(&hanging.pipeline.client(), ECHO, "").soon().map(drop)
}

fn streaming(connection: &Connection) -> Result<()> {
    let (client, stream) = (connection.bootstrap::<Client>(), Stream::with_window(100));
    for _ in 0..3 {
        stream.send(request(&client, HANG, "0123456789 0123456789 0123456789 0123456789"))?;
    }
    stream.finish()
}

fn waiting_in_a_promise(connection: &Connection) -> Result<()> {
    let hanging = send(&connection.bootstrap::<Client>(), HANG, "");
    let resolved = hanging.pipeline.client().resolve();
    resolved.map(drop)
}

fn waiting_for_the_end(connection: &Connection) -> Result<()> {
    let _hanging = send(&connection.bootstrap::<Client>(), HANG, "");
    Err(connection.wait_closed()?.into())
}
