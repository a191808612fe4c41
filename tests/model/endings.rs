//! The end of a connection, while somebody waits for something of it: each is told, and nothing hangs.

use capnp_threads::testing::record;
use capnp_threads::{
    Capability, Client, Connection, Deferred, Error, Exception, ExceptionKind, Limits, Pool, Stream,
};
use shuttle::sync::mpsc::channel;
use shuttle::sync::{Arc, Mutex};
use shuttle::thread;

use super::support::{ask, check, connect, connect_to_cut, connect_with, numbers, object, send};

/// What a silent object keeps, until it is let go.
#[derive(Clone)]
struct Kept(Arc<Mutex<Option<Vec<Deferred>>>>);

impl Kept {
    /// Lets go of all calls, and of those to come: one may have the object itself in its params.
    fn let_go(self) {
        let kept = self.0.lock().unwrap().take();
        drop(kept);
    }
}

/// An object that never answers, and what it keeps.
fn silent(pool: &Pool) -> (Client, Kept) {
    let kept = Kept(Arc::new(Mutex::new(Some(Vec::new()))));
    let keeps = kept.clone();
    let silent = object(pool, move |call| {
        let deferred = call.defer()?;
        match &mut *keeps.0.lock().unwrap() {
            Some(kept) => kept.push(deferred),
            None => drop(deferred),
        }
        Ok(())
    });
    (silent, kept)
}

/// Ends one of the connections, in one of three ways, on a thread of its own.
fn end(vats: &[Connection; 2], way: usize) -> thread::JoinHandle<()> {
    let [first, second] = vats.clone();
    thread::spawn(move || match way {
        0 => first.abort(Exception::failed("enough")),
        1 => second.abort(Exception::failed("enough")),
        _ => second.close(std::time::Duration::ZERO).unwrap(),
    })
}

/// Both have ended, and hold nothing.
fn assert_ended(vats: [Connection; 2]) {
    for connection in vats {
        assert_eq!(connection.wait_closed().unwrap().kind(), ExceptionKind::Disconnected);
        assert!(connection.snapshot().is_empty());
    }
}

fn assert_disconnected<T: std::fmt::Debug>(outcome: Result<T, Error>) {
    assert_eq!(outcome.unwrap_err().kind(), ExceptionKind::Disconnected);
}

fn a_waiting_caller(way: usize) {
    let pool = Pool::new();
    let (silent, kept) = silent(&pool);
    let vats = connect(Client::null(), silent);
    let bootstrap = vats[0].bootstrap::<Client>();
    let waiting = thread::spawn(move || assert_disconnected(ask(&bootstrap, 1)));
    // Closing waits for calls that are under way, unless they end first: here one never does.
    let ending = end(&vats, way);
    waiting.join().unwrap();
    ending.join().unwrap();
    assert_ended(vats);
    kept.let_go();
}

#[test]
fn a_waiting_caller_is_told_of_our_abort() {
    check(1500, || a_waiting_caller(0));
}

#[test]
fn a_waiting_caller_is_told_of_the_peers_abort() {
    check(1500, || a_waiting_caller(1));
}

#[test]
fn waiter_for_a_stream_is_told_of_the_end() {
    check(1500, || {
        let pool = Pool::new();
        let (silent, kept) = silent(&pool);
        let (vats, line) = connect_to_cut(silent);
        let bootstrap = vats[0].bootstrap::<Client>();
        let (sent, cut) = channel();
        let streaming = thread::spawn(move || {
            // The first to wait finds the receive thread reading; who waits then, reads itself.
            let bootstrap = bootstrap.resolve().unwrap();
            let stream = Stream::new();
            let mut request = bootstrap.request(1, 1);
            record::write(request.get(), 1, &[]);
            stream.send(request).unwrap();
            sent.send(()).unwrap();
            assert_disconnected(stream.finish());
        });
        let cutting = thread::spawn(move || {
            cut.recv().unwrap();
            line.cut();
        });
        streaming.join().unwrap();
        cutting.join().unwrap();
        assert_ended(vats);
        kept.let_go();
    });
}

#[test]
fn a_caller_that_waits_for_room_is_told() {
    check(1500, || {
        let pool = Pool::new();
        let (silent, kept) = silent(&pool);
        let mut limits = Limits::default();
        limits.questions = 2;
        let vats = connect_with(Client::null(), silent, limits);
        let bootstrap = vats[0].bootstrap::<Client>();
        let callers: Vec<_> = (0..3)
            .map(|n| {
                let bootstrap = bootstrap.clone();
                thread::spawn(move || assert_disconnected(ask(&bootstrap, n)))
            })
            .collect();
        let ending = end(&vats, 0);
        callers.into_iter().for_each(|caller| caller.join().unwrap());
        ending.join().unwrap();
        drop(bootstrap);
        assert_ended(vats);
        kept.let_go();
    });
}

#[test]
fn a_callback_is_called_once_whenever_it_is_registered() {
    check(1500, || {
        let pool = Pool::new();
        let (silent, kept) = silent(&pool);
        let vats = connect(Client::null(), silent);
        let sent = send(&vats[0].bootstrap::<Client>(), 0, &[]);
        let ending = end(&vats, 1);
        let (sender, receiver) = channel();
        let tell = sender.clone();
        sent.on_ready(move |outcome| tell.send(outcome.unwrap_err().kind()).unwrap());
        vats[0].on_disconnect(move |why| sender.send(why.kind()).unwrap());
        let told: Vec<_> = receiver.iter().collect();
        assert_eq!(told, [ExceptionKind::Disconnected; 2]);
        ending.join().unwrap();
        assert_ended(vats);
        kept.let_go();
    });
}

#[test]
fn promise_fulfilled_while_the_connection_ends_fails_its_calls_as_disconnected() {
    check(1500, || {
        let pool = Pool::new();
        let (silent, kept) = silent(&pool);
        let vats = connect(Client::null(), silent);
        let bootstrap = vats[0].bootstrap::<Client>();
        let (promise, fulfiller) = Client::promise();
        // The peer holds the promise, calls wait in it, and it becomes a promise of the peer's.
        let params = send(&bootstrap, 0, &[promise.clone()]);
        let queued = send(&promise, 1, &[]);
        let fulfilling = thread::spawn(move || fulfiller.fulfill(bootstrap));
        let ending = end(&vats, 0);
        assert_disconnected(params.wait());
        assert_disconnected(queued.wait());
        // It may have become known what it is before the end.
        if let Err(e) = promise.resolve() {
            assert_eq!(e.kind(), ExceptionKind::Disconnected);
        }
        drop(promise);
        fulfilling.join().unwrap();
        ending.join().unwrap();
        assert_ended(vats);
        kept.let_go();
    });
}

#[test]
fn an_unused_connection_ends_by_itself() {
    check(1500, || {
        let pool = Pool::new();
        let [first, second] = connect(Client::null(), numbers(&pool, |n| n));
        let bootstrap = first.bootstrap::<Client>();
        drop(first);
        assert_eq!(ask(&bootstrap, 4).unwrap(), 4);
        drop(bootstrap);
        second.wait_closed().unwrap();
        assert!(second.snapshot().is_empty());
    });
}
