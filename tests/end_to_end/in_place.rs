//! Objects whose methods run where the call is, and stages that are lent or not.

use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;

use capnp_threads::transport::Transport;
use capnp_threads::{Capability, Client, Connection, ExceptionKind, Limits, Pool, Threads, Vat};

use crate::support::*;

/// Says which thread it runs on.
fn telling() -> Client {
    let named = server(|call| reply(call, thread::current().name().unwrap_or("?")));
    Client::with_pool(named, Pool::in_place())
}

/// Two ends of a TCP connection, the first of which offers `bootstrap`.
fn connected(bootstrap: &Client, threads: Threads) -> [Connection; 2] {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let far = listener.accept().unwrap().0;
    let tcp = |stream| Transport::tcp(stream, &Limits::default()).unwrap();
    let vat = Vat::new().threads(threads);
    [vat.clone().bootstrap(bootstrap.clone()).over(tcp(far)).unwrap(), vat.over(tcp(near)).unwrap()]
}

#[test]
fn method_in_place_runs_on_the_thread_that_delivers_the_call() {
    let here = thread::current().name().unwrap().to_owned();
    assert_eq!(ask(&telling(), 0, "").unwrap(), here);
    let reading: &[_] = &["capnp-receive", "capnp-reactor"];
    for (threads, expected) in [(Threads::Lending, reading), (Threads::Strict, &["capnp-callback"])] {
        let [_server, client] = connected(&telling(), threads);
        let there = ask(&client.bootstrap(), 0, "").unwrap();
        assert!(expected.contains(&there.as_str()), "{there}");
    }
}

#[test]
fn wait_in_a_method_in_place_is_refused() {
    // Never answered, so that there is something to wait for.
    let (never, _fulfiller) = Client::promise();
    let waits = Client::with_pool(server(move |call| reply(call, &ask(&never, 0, "")?)), Pool::in_place());
    let [_server, client] = connected(&waits, Threads::Lending);
    for client in [&waits, &client.bootstrap()] {
        let refused = ask(client, 0, "").unwrap_err();
        assert_eq!(refused.kind(), ExceptionKind::Failed);
        assert!(refused.to_string().contains("runs in place"), "{refused}");
    }
    // The thread is the caller's again, which may wait.
    assert_eq!(ask(&echo(), 0, "hello").unwrap(), "hello");
}

/// Each calls the next: no stack grows with them.
#[test]
fn a_long_chain_of_calls_in_place_takes_no_deep_stack() {
    const LENGTH: usize = 20_000;
    let (sender, reached) = crossbeam_channel::bounded(1);
    let chain: Arc<OnceLock<Vec<Client>>> = Arc::default();
    let link = |n: usize| {
        let (chain, sender) = (chain.clone(), sender.clone());
        let passing_on = server(move |call| {
            match chain.get().unwrap().get(n + 1) {
                Some(next) => send(next, 0, "").on_ready(drop),
                None => sender.send(n).unwrap(),
            }
            reply(call, "")
        });
        Client::with_pool(passing_on, Pool::in_place())
    };
    chain.set((0..LENGTH).map(link).collect()).unwrap();
    ask(&chain.get().unwrap()[0], 0, "").unwrap();
    assert_eq!(reached.soon(), LENGTH - 1);
}

/// What a borrower could not send at once, the send thread sends, and in order with all else.
#[test]
fn peer_that_reads_late_gets_all_messages_in_order() {
    for threads in [Threads::Lending, Threads::Strict] {
        let (entered, has_entered) = crossbeam_channel::bounded(1);
        let (open, opened) = crossbeam_channel::bounded::<()>(0);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = seen.clone();
        let slow = object(move |call| {
            let text = text(call)?;
            if text == "first" {
                entered.send(()).unwrap();
                let _ = opened.recv();
            }
            log.lock().unwrap().push(text.len());
            reply(call, "")
        });
        let [_server, client] = connected(&slow, threads);
        let remote: Client = client.bootstrap();
        let first = send(&remote, 0, "first");
        has_entered.soon();
        // Far more than the system and the limit on calls in service hold: most of it has to wait.
        let calling = thread::spawn(move || {
            let sent: Vec<_> = (0..3000).map(|n| send(&remote, 0, &"x".repeat(n * 7 + 10))).collect();
            sent.into_iter().for_each(|sent| drop(sent.soon().unwrap()));
        });
        drop(open);
        first.soon().unwrap();
        calling.join().unwrap();
        let expected: Vec<_> = [5].into_iter().chain((0..3000).map(|n| n * 7 + 10)).collect();
        assert_eq!(*seen.lock().unwrap(), expected);
    }
}
