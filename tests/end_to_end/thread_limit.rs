//! The limit on all threads of a process: what is beyond it is refused, what is there goes on, and places come back.

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::time::Instant;

use capnp_threads::transport::Transport;
use capnp_threads::{
    set_thread_limit, thread_count, thread_shortages, Capability, Client, ExceptionKind, Pool, Threads, Vat,
};
use crossbeam_channel::unbounded;

use crate::support::alone::alone;
use crate::support::{ask, echo, object, reply, send, server, Soon, DEADLINE};

/// What the crate has logged.
static LOG: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Logger;

impl log::Log for Logger {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        LOG.lock().unwrap().push(record.args().to_string());
    }

    fn flush(&self) {}
}

fn start_logging() {
    log::set_logger(&Logger).unwrap();
    log::set_max_level(log::LevelFilter::Warn);
}

#[track_caller]
fn eventually(wanted: impl Fn() -> bool) {
    let until = Instant::now() + DEADLINE;
    while !wanted() {
        assert!(Instant::now() < until);
        std::thread::yield_now();
    }
}

/// Whether a connection is kept, or ended at once.
fn is_served(stream: &mut TcpStream, count: usize, served: impl Fn() -> usize) -> bool {
    eventually(|| {
        stream.set_nonblocking(true).unwrap();
        let ended = stream.peek(&mut [0]).is_ok_and(|n| n == 0)
            || stream.peek(&mut [0]).is_err_and(|e| e.kind() != std::io::ErrorKind::WouldBlock);
        ended || served() > count
    });
    served() > count
}

/// Connects without a word until that is refused.
fn fill(address: SocketAddr, served: impl Fn() -> usize) -> Vec<TcpStream> {
    let mut streams = Vec::new();
    loop {
        let count = served();
        let mut stream = TcpStream::connect(address).unwrap();
        if !is_served(&mut stream, count, &served) {
            stream.set_nonblocking(false).unwrap();
            // It may also be reset.
            assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0);
            return streams;
        }
        streams.push(stream);
    }
}

#[test]
fn connections_beyond_the_thread_limit_are_refused_and_the_others_are_served() {
    alone(
        "thread_limit::connections_beyond_the_thread_limit_are_refused_and_the_others_are_served",
        &[],
        || {
            const LIMIT: usize = 64;
            start_logging();
            set_thread_limit(Some(LIMIT));
            let strict = Vat::new().threads(Threads::Strict);
            let listener = strict.clone().bootstrap(echo()).listen("127.0.0.1:0").unwrap();
            let address = listener.local_addr();
            let connection = strict.connect(address).unwrap();
            let remote = connection.bootstrap::<Client>();
            assert_eq!(ask(&remote, 0, "before").unwrap(), "before");
            let streams = fill(address, || listener.connections().len());
            // Three quarters are for connections; this process has one side of most of them.
            assert!((8..=LIMIT * 3 / 4 / 4).contains(&streams.len()), "{} connections", streams.len());
            assert!(thread_count() <= LIMIT);
            eventually(|| !LOG.lock().unwrap().is_empty());
            let logged = LOG.lock().unwrap()[0].clone();
            assert!(
                logged
                    .contains("a connection could not be accepted: overloaded: a connection needs 4 threads"),
                "{logged}"
            );
            for _ in 0..10 {
                let refused = strict.connect(address).unwrap_err();
                assert_eq!(refused.kind(), ExceptionKind::Overloaded);
                assert!(refused.to_string().contains("no room for more threads"), "{refused}");
                assert_eq!(ask(&remote, 0, "beside").unwrap(), "beside");
            }
            drop(streams);
            // All that they had is given back.
            eventually(|| listener.connections().len() == 1);
            eventually(|| {
                strict.connect(address).is_ok_and(|more| ask(&more.bootstrap::<Client>(), 0, "after").is_ok())
            });
            drop((remote, connection));
            listener.close(DEADLINE).unwrap();
            // What is left: the timer, the reactor, and threads of the pool that idle.
            eventually(|| thread_count() <= 8);
        },
    );
}

/// The sockets' buffers are smaller than what is sent, so that each connection's send stage would wait.
#[test]
fn connections_go_on_where_there_is_no_thread_for_their_stages() {
    alone("thread_limit::connections_go_on_where_there_is_no_thread_for_their_stages", &[], || {
        const LARGE: usize = 4 << 20;
        let listener = Vat::new().bootstrap(echo()).listen("127.0.0.1:0").unwrap();
        let address = listener.local_addr();
        let remotes: Vec<Client> = (0..6).map(|_| Vat::new().connect(address).unwrap().bootstrap()).collect();
        for remote in &remotes {
            assert_eq!(ask(remote, 0, "before").unwrap(), "before");
        }
        // All that there are now, and a few for methods: none of them is for a stage.
        let limit = thread_count().max(8);
        set_thread_limit(Some(limit));
        let refused = Vat::new().connect(address).unwrap_err();
        assert_eq!(refused.kind(), ExceptionKind::Overloaded, "{refused}");
        let before = thread_shortages();
        let large = "x".repeat(LARGE);
        std::thread::scope(|scope| {
            for remote in &remotes {
                scope.spawn(|| {
                    for _ in 0..3 {
                        assert_eq!(ask(remote, 0, &large).unwrap().len(), LARGE);
                    }
                });
            }
        });
        assert!(thread_shortages() > before);
        assert!(thread_count() <= limit);
        set_thread_limit(None);
        assert!(Vat::new().connect(address).is_ok());
    });
}

#[test]
fn idle_connections_have_no_threads() {
    alone("thread_limit::idle_connections_have_no_threads", &[], || {
        const CONNECTIONS: usize = 200;
        let listener = Vat::new().bootstrap(echo()).listen("127.0.0.1:0").unwrap();
        let address = listener.local_addr();
        let connections: Vec<_> = (0..CONNECTIONS).map(|_| Vat::new().connect(address).unwrap()).collect();
        for connection in &connections {
            assert_eq!(ask(&connection.bootstrap::<Client>(), 0, "here").unwrap(), "here");
        }
        eventually(|| thread_count() < 20);
        for connection in &connections {
            assert_eq!(ask(&connection.bootstrap::<Client>(), 0, "again").unwrap(), "again");
        }
        drop(connections);
        eventually(|| listener.connections().is_empty());
        eventually(|| thread_count() < 10);
    });
}

#[test]
fn calls_beyond_the_thread_limit_are_refused_if_nobody_could_serve_them() {
    alone("thread_limit::calls_beyond_the_thread_limit_are_refused_if_nobody_could_serve_them", &[], || {
        set_thread_limit(Some(20));
        let (promise, fulfiller) = Client::promise();
        let pool = Pool::new();
        let (start, started) = unbounded();
        let waiting = || {
            let (promise, start) = (promise.clone(), start.clone());
            Client::with_pool(
                server(move |call| {
                    start.send(()).unwrap();
                    promise.resolve()?;
                    reply(call, "resolved")
                }),
                &pool,
            )
        };
        let calls: Vec<_> = (0..40).map(|_| send(&waiting(), 0, "")).collect();
        // As many wait as there are threads for, and no call hangs.
        let (first, refused): (Vec<_>, Vec<_>) = {
            eventually(|| calls.iter().filter(|call| call.promise.is_ready()).count() >= 20);
            calls.into_iter().partition(|call| !call.promise.is_ready())
        };
        // Where a call waits for a thread, it is the last method that is awake that may not wait.
        assert!(started.try_iter().count() >= first.len());
        for call in refused {
            let why = call.soon().unwrap_err();
            assert_eq!(why.kind(), ExceptionKind::Overloaded, "{why}");
            assert!(why.to_string().contains("no room for more threads"), "{why}");
        }
        assert!(first.len() >= 15, "{} wait", first.len());
        fulfiller.fulfill(echo());
        first.into_iter().for_each(|call| drop(call.soon().unwrap()));
        let served = Client::with_pool(server(|call| reply(call, "served")), &pool);
        assert_eq!(ask(&served, 0, "").unwrap(), "served");
    });
}

/// The user's limit on processes stands for those of the system that a test can't set.
#[test]
fn without_a_limit_of_its_own_a_process_keeps_to_what_the_system_has() {
    alone(
        "thread_limit::without_a_limit_of_its_own_a_process_keeps_to_what_the_system_has",
        &["--nproc=800:", "--nofile=1024:"],
        || {
            start_logging();
            let strict = Vat::new().threads(Threads::Strict);
            let listener =
                strict.clone().bootstrap(object(|call| reply(call, "here"))).listen("127.0.0.1:0").unwrap();
            let address = listener.local_addr();
            let connection = strict.connect(address).unwrap();
            let streams = fill(address, || listener.connections().len());
            // Of three quarters of seven eighths of 800.
            assert!(thread_count() <= 525, "{}", thread_count());
            assert!(streams.len() > 100, "{} connections", streams.len());
            assert_eq!(ask(&connection.bootstrap::<Client>(), 0, "").unwrap(), "here");
            let (here, there) = Transport::in_memory();
            let refused = [here, there].map(|side| strict.over(side).unwrap_err());
            assert!(refused.iter().all(|why| why.kind() == ExceptionKind::Overloaded), "{refused:?}");
        },
    );
}
