//! Tail calls: who answers, in which order, and who hears of a cancellation.

use capnp_threads::{Cancel, Capability, Result};
use crossbeam_channel::{unbounded, Receiver, Sender};

use super::harbour::*;
use crate::support::{offered, text, Setting, Soon, DEADLINE};

in_each_setting!(
    a_tail_call_answers_for_its_caller,
    a_tail_call_is_canceled,
    a_tail_call_is_canceled_while_it_is_made,
    a_tail_call_to_an_object_beside,
);

fn number(of: &counter::Client) -> u32 {
    of.count(|_| ()).soon().unwrap().get().unwrap().get_number()
}

fn a_tail_call_answers_for_its_caller(setting: Setting) {
    let (object, books) = boat();
    offered(setting, object, |ship| {
        let my_books = Books::new();
        let agent = ship.agent().pipeline.get().get_agent();
        let filed = agent.file(|mut params| {
            params.set_number(31);
            params.set_clerk(clerk(&my_books));
        });
        let ahead = filed.pipeline.get().get_counter();
        let first = ahead.count(|_| ());
        let response = filed.soon().unwrap();
        let results = response.get().unwrap();
        assert_eq!((results.get_number(), text(results.get_note())), (31, "by the agent".into()));
        let second = ahead.count(|_| ());
        assert_eq!(first.soon().unwrap().get().unwrap().get_number(), 0);
        assert_eq!(second.soon().unwrap().get().unwrap().get_number(), 1);
        assert_eq!(number(&results.get_counter().unwrap()), 2);
        assert_eq!((books.calls(), my_books.calls()), (1, 1));
    });
}

/// Answers nothing; tells who calls, and its cancellation.
struct Idle(Sender<Cancel>);

impl clerk::Server for Idle {
    fn file(&self, _: clerk::FileParams, results: clerk::FileResults<'_>) -> Result<()> {
        self.0.send(results.cancellation().clone()).unwrap();
        results.cancellation().wait()
    }
}

fn a_tail_call_is_canceled(setting: Setting) {
    let (object, _) = boat();
    offered(setting, object, |ship| {
        let (sender, called) = unbounded();
        let idle = clerk::Client::new(Idle(sender));
        let agent = ship.agent().pipeline.get().get_agent();
        let filed = agent.file(|mut params| params.set_clerk(idle));
        let cancel: Cancel = (&called).soon();
        assert!(!cancel.is_canceled());
        drop(filed);
        cancel.wait().unwrap();
        assert!(called.is_empty());
    });
}

/// Hands its call on when it is told to.
struct Slow {
    begun: Sender<()>,
    go: Receiver<()>,
}

impl agent::Server for Slow {
    fn file(&self, params: agent::FileParams, results: agent::FileResults<'_>) -> Result<()> {
        let request = params.get()?.get_clerk()?.file_request();
        self.begun.send(()).unwrap();
        self.go.recv_timeout(DEADLINE).expect("told to go on");
        results.tail_call(request)
    }
}

fn a_tail_call_is_canceled_while_it_is_made(setting: Setting) {
    let ((begun, has_begun), (tell, go)) = (unbounded(), unbounded());
    offered(setting, agent::Client::new(Slow { begun, go }), |agent| {
        let (sender, called) = unbounded();
        let filed = agent.file(|mut params| params.set_clerk(Capability::new(Idle(sender))));
        (&has_begun).soon();
        assert!(called.is_empty());
        let (dropped, is_dropped) = unbounded();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                drop(filed);
                dropped.send(()).unwrap();
            });
            tell.send(()).unwrap();
            (&is_dropped).soon();
        });
        // The clerk's call may never begin; if it does, it is canceled.
        if let Ok(cancel) = called.recv_timeout(DEADLINE) {
            cancel.wait().unwrap();
        }
    });
}

fn a_tail_call_to_an_object_beside(setting: Setting) {
    let (object, books) = boat();
    offered(setting, object, |ship| {
        // Agent and clerk are in one vat, and the caller may be in another.
        let clerk = ship.clerk().pipeline.get().get_clerk();
        let agent = ship.agent().pipeline.get().get_agent();
        let filed = agent.file(|mut params| {
            params.set_number(-2);
            params.set_clerk(clerk);
        });
        let ahead = filed.pipeline.get().get_counter();
        assert_eq!(number(&ahead), 0);
        assert_eq!(filed.soon().unwrap().get().unwrap().get_number(), 2);
        assert_eq!(number(&ahead), 1);
        assert_eq!(books.calls(), 2);
    });
}
