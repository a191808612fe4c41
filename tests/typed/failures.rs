//! What goes wrong in a method, on the way to it, or before it.

use capnp_threads::{Capability, Error, Exception, ExceptionKind};

use crate::support::{offered, text, Setting, Soon};
use crate::work::{add, silent, stranger, worker, Kind};

in_each_setting!(
    errors_of_all_kinds_keep_kind_and_reason,
    a_panic_answers_and_the_object_lives_on,
    what_is_malformed_answers_with_an_error,
    a_method_that_is_not_written_is_unimplemented,
    an_interface_that_is_not_there_is_unimplemented,
    an_error_in_filling_the_params_is_the_answer,
    a_null_client_in_params_fails_its_calls,
    an_error_of_a_call_is_passed_on,
    a_failed_call_breaks_what_is_ahead,
    errors_of_ours_and_of_texts_pass_through_filling_params,
);

fn fail(worker: &worker::Client, kind: Kind, why: &str) -> Error {
    let failed = worker.fail(|mut params| {
        params.set_kind(kind);
        params.set_why(why);
    });
    failed.soon().unwrap_err()
}

fn errors_of_all_kinds_keep_kind_and_reason(setting: Setting) {
    offered(setting, silent(), |worker| {
        let kinds = [
            (Kind::Failed, ExceptionKind::Failed),
            (Kind::Overloaded, ExceptionKind::Overloaded),
            (Kind::Disconnected, ExceptionKind::Disconnected),
            (Kind::Unimplemented, ExceptionKind::Unimplemented),
        ];
        for (sent, kind) in kinds {
            let error = fail(&worker, sent, "a reason");
            assert_eq!(error.kind(), kind);
            assert!(error.to_string().contains("a reason"), "{error}");
        }
        assert_eq!(add(&worker, 1, 2).unwrap(), 3);
    });
}

fn a_panic_answers_and_the_object_lives_on(setting: Setting) {
    offered(setting, silent(), |worker| {
        let error = worker.panic(|mut params| params.set_with("a tantrum")).soon().unwrap_err();
        assert_eq!(error.kind(), ExceptionKind::Failed);
        assert!(error.to_string().contains("a tantrum"), "{error}");
        assert_eq!(add(&worker, 4, 5).unwrap(), 9);
    });
}

fn what_is_malformed_answers_with_an_error(setting: Setting) {
    offered(setting, silent(), |worker| {
        let read = worker.read(|params| params.init_what().set_as("fine")).soon().unwrap();
        assert_eq!(text(read.get().unwrap().get_text()), "fine");
        // Bytes that are no UTF-8, a list of something else, and a struct where text should be.
        let bytes = worker.read(|params| params.init_what().set_as(capnp::text::Reader(&[0xff, 0xfe])));
        let list = worker.read(|params| params.init_what().set_as(&[1u64, 2][..]));
        let nested = worker.read(|params| {
            params.init_what().init_as::<crate::work::sum::Builder<'_>>().set_sum(1);
        });
        for error in [bytes, list, nested].map(|read| read.soon().unwrap_err()) {
            assert_eq!(error.kind(), ExceptionKind::Failed, "{error}");
        }
        assert_eq!(add(&worker, 1, 1).unwrap(), 2);
    });
}

fn a_method_that_is_not_written_is_unimplemented(setting: Setting) {
    offered(setting, silent(), |worker| {
        let error = worker.unwritten(|mut params| params.set_text("x")).soon().unwrap_err();
        assert_eq!(error.kind(), ExceptionKind::Unimplemented);
        let wanted = "the method `unwritten` of `Worker` is not implemented";
        assert!(error.to_string().contains(wanted), "{error}");
    });
}

fn an_interface_that_is_not_there_is_unimplemented(setting: Setting) {
    offered(setting, silent(), |worker| {
        let stranger = worker.clone().cast_to::<stranger::Client>();
        let error = stranger.speak(|mut params| params.set_text("x")).soon().unwrap_err();
        assert_eq!(error.kind(), ExceptionKind::Unimplemented);
        assert_eq!(add(&stranger.cast_to(), 2, 2).unwrap(), 4);
    });
}

fn an_error_in_filling_the_params_is_the_answer(setting: Setting) {
    let (object, told) = worker();
    offered(setting, object, |worker| {
        let later = worker.later(|mut params| {
            params.set_text("half");
            Err(capnp::Error::overloaded("changed its mind".into()))
        });
        assert!(later.is_ready());
        let error = later.soon().unwrap_err();
        assert_eq!(error.kind(), ExceptionKind::Overloaded);
        assert!(error.to_string().contains("changed its mind"));
        // Nothing was sent.
        assert_eq!(add(&worker, 0, 1).unwrap(), 1);
        assert!(told.is_empty());
    });
}

fn a_null_client_in_params_fails_its_calls(setting: Setting) {
    offered(setting, silent(), |worker| {
        for callback in [worker::Client::null(), worker::Client::broken(Exception::overloaded("no more"))] {
            let called = worker.call(|mut params| params.set_callback(callback.clone()));
            let error = called.soon().unwrap_err();
            let kind = if callback.is_null() { ExceptionKind::Failed } else { ExceptionKind::Overloaded };
            assert_eq!(error.kind(), kind, "{error}");
        }
        // And where there is none at all, reading it fails.
        let error = worker.call(|_| ()).soon().unwrap_err();
        assert_eq!(error.kind(), ExceptionKind::Failed);
    });
}

fn an_error_of_a_call_is_passed_on(setting: Setting) {
    struct Broke;
    impl worker::Server for Broke {
        fn add(&self, _: worker::AddParams, _: worker::AddResults<'_>) -> capnp_threads::Result<()> {
            Err(Exception::overloaded("broke").into())
        }
    }
    offered(setting, silent(), |worker| {
        let called = worker.call(|mut params| params.set_callback(Capability::new(Broke))).soon();
        let error = called.unwrap_err();
        assert_eq!(error.kind(), ExceptionKind::Overloaded);
        assert!(error.to_string().contains("broke"), "{error}");
        let forwarded = worker.forward(|mut params| params.set_to(Capability::new(Broke))).soon();
        assert_eq!(forwarded.unwrap_err().kind(), ExceptionKind::Overloaded);
    });
}

fn a_failed_call_breaks_what_is_ahead(setting: Setting) {
    offered(setting, silent(), |worker| {
        let opened = worker.open(|_| Err(capnp::Error::overloaded("not now".into())));
        let door = opened.pipeline.get().get_room().get_door();
        assert_eq!(add(&door, 1, 1).unwrap_err().kind(), ExceptionKind::Overloaded);
        let opened = worker::Client::broken(Exception::disconnected("away")).open(|_| ());
        let door = opened.pipeline.get().get_room().get_door();
        assert_eq!(add(&door, 1, 1).unwrap_err().kind(), ExceptionKind::Disconnected);
    });
}

fn errors_of_ours_and_of_texts_pass_through_filling_params(setting: Setting) {
    offered(setting, silent(), |worker| {
        let error = worker.add(|_| Ok(Err(Error::overloaded("ours"))?)).soon().unwrap_err();
        assert_eq!(error.to_string(), "overloaded: ours");
        let sum = worker.add(|mut params| {
            params.set_a(std::str::from_utf8(b"1")?.len() as i64);
            Ok(())
        });
        assert_eq!(crate::work::sum_in(sum.soon().unwrap()), 1);
    });
}
