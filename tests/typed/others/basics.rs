//! Plain calls, inheritance, calls made ahead, exceptions, defaults, keywords.

use capnp_threads::{Capability, Error, ExceptionKind, Result};

use super::harbour::*;
use crate::support::{hook, offered, text, Setting, Soon};

in_each_setting!(
    calls_with_all_kinds_of_data,
    methods_of_bases_and_of_the_interface_itself,
    a_chain_of_calls_ahead,
    a_chain_of_calls_ahead_on_any_capability,
    a_call_for_the_sake_of_its_pipeline,
    a_pipeline_is_set_and_the_method_does_not_return,
    a_pipeline_is_used_after_the_response_is_dropped,
    a_method_fails_with_all_there_is_to_say,
    params_and_results_with_defaults,
    methods_called_like_keywords_of_other_languages,
    a_list_of_clients_and_any_pointer,
);

fn calls_with_all_kinds_of_data(setting: Setting) {
    let (object, books) = boat();
    offered(setting, object, |ship| {
        let hailed = ship.hail(|mut params| {
            params.set_number(7);
            params.set_loud(true);
            params.set_call(0);
        });
        let scuttled = ship.scuttle();
        let loaded = ship.load(|params| fill(params.init_cargo()));
        assert_eq!(text(hailed.soon().unwrap().get().unwrap().get_reply()), AYE);
        assert!(loaded.soon().is_ok());
        assert_eq!(scuttled.soon().unwrap_err().kind(), ExceptionKind::Unimplemented);
        assert_eq!(books.calls(), 2);
    });
}

fn methods_of_bases_and_of_the_interface_itself(setting: Setting) {
    let books = Books::new();
    offered(setting, liner::Client::new(Tug(books.clone())), |liner| {
        let steamer = steamer::Client::from(liner.clone());
        let ship = ship::Client::from(liner);
        let (hailed, unloaded) = (ship.hail(|mut params| params.set_number(8)), steamer.unload());
        assert_eq!(text(hailed.soon().unwrap().get().unwrap().get_reply()), TOOT);
        check(unloaded.soon().unwrap().get().unwrap());
        steamer.whistle().soon().unwrap();
        steamer.stow(fill).soon().unwrap();
        assert_eq!(books.calls(), 4);
        // It has no such thing as a pilot.
        assert_eq!(ship.pilot().soon().unwrap_err().kind(), ExceptionKind::Unimplemented);
    });
}

/// Hails and unloads what a berth holds, all ahead.
fn use_berth(ship: &ship::Client) {
    let unloaded = ship.clone().cast_to::<steamer::Client>().unload();
    assert_eq!(whisper(ship).unwrap(), TOOT);
    check(unloaded.soon().unwrap().get().unwrap());
}

fn a_chain_of_calls_ahead(setting: Setting) {
    let (object, books) = boat();
    offered(setting, object, |ship| {
        let (mine, my_books) = boat();
        let pilot = ship.pilot().pipeline.get().get_pilot();
        let guided = pilot.guide(|mut params| {
            params.set_number(99);
            params.set_ship(mine);
        });
        let berth = guided.pipeline.get().get_berth().get_ship();
        // What it was taken from is dropped.
        drop(guided);
        use_berth(&berth);
        assert_eq!((books.calls(), my_books.calls()), (3, 1));
    });
}

fn a_chain_of_calls_ahead_on_any_capability(setting: Setting) {
    let (object, books) = boat();
    offered(setting, object, |ship| {
        let (mine, my_books) = boat();
        let pilot = ship.pilot().pipeline.get().get_pilot();
        let guided = pilot.guide_any(|mut params| params.set_ship(mine));
        let berth: ship::Client = guided.pipeline.get().get_berth().get_ship().cast_to();
        drop(guided);
        use_berth(&berth);
        assert_eq!((books.calls(), my_books.calls()), (3, 1));
    });
}

fn a_call_for_the_sake_of_its_pipeline(setting: Setting) {
    let (object, books) = boat();
    offered(setting, object, |ship| {
        let (mine, my_books) = boat();
        let mut request = ship.pilot().pipeline.get().get_pilot().guide_request();
        request.get().set_number(99);
        request.get().set_ship(mine);
        let pipeline = request.send_for_pipeline();
        let berth = pipeline.get().get_berth().get_ship();
        drop(pipeline);
        use_berth(&berth);
        assert_eq!((books.calls(), my_books.calls()), (3, 1));
    });
}

fn a_pipeline_is_set_and_the_method_does_not_return(setting: Setting) {
    let (object, books) = boat();
    offered(setting, object, |ship| {
        let ahead = ship.pilot().pipeline.get().get_pilot().guide_ahead();
        use_berth(&ahead.pipeline.get().get_berth().get_ship());
        assert_eq!(books.calls(), 3);
        assert!(!ahead.is_ready());
    });
}

fn a_pipeline_is_used_after_the_response_is_dropped(setting: Setting) {
    let (object, books) = boat();
    offered(setting, object, |ship| {
        let (mine, _) = boat();
        let guided = ship.pilot().pipeline.get().get_pilot().guide(|mut params| {
            params.set_number(99);
            params.set_ship(mine);
        });
        let berth = guided.pipeline.get().get_berth().get_ship();
        let response = guided.soon().unwrap();
        assert_eq!(text(response.get().unwrap().get_note()), "guided");
        drop(response);
        use_berth(&berth);
        assert_eq!(books.calls(), 3);
    });
}

fn a_method_fails_with_all_there_is_to_say(setting: Setting) {
    let (object, _) = boat();
    offered(setting, object, |ship| {
        let harbour = ship.harbour().pipeline.get().get_harbour();
        let error = harbour.wreck().soon().unwrap_err();
        assert_eq!(error.kind(), ExceptionKind::Failed);
        assert!(error.to_string().contains("on the rocks"), "{error}");
        let Error::Exception(why) = harbour.wreck_with_detail().soon().unwrap_err() else {
            panic!("another error")
        };
        assert_eq!(why.kind(), ExceptionKind::Overloaded);
        assert!(why.reason().contains("on the rocks"), "{why}");
        assert_eq!(why.trace(), "rock by rock");
        let details: Vec<_> = why.details().iter().map(|detail| (detail.id, &*detail.data)).collect();
        assert_eq!(details, [(5, &b"north"[..])]);
    });
    // What was passed on over two vats says so no more than once.
    let (object, _) = boat();
    offered(setting, object, |ship| {
        struct Wreck;
        impl ship::Server for Wreck {
            fn scuttle(&self, _: ship::ScuttleParams, _: ship::ScuttleResults<'_>) -> Result<()> {
                Err(Error::failed("gone under"))
            }
        }
        let harbour = ship.harbour().pipeline.get().get_harbour();
        let error =
            harbour.wreck_of(|mut params| params.set_ship(Capability::new(Wreck))).soon().unwrap_err();
        assert_eq!(error.to_string().matches("gone under").count(), 1, "{error}");
        assert!(error.to_string().matches("remote").count() <= 1, "{error}");
    });
}

fn params_and_results_with_defaults(setting: Setting) {
    let (object, books) = boat();
    offered(setting, object, |ship| {
        let harbour = ship.harbour().pipeline.get().get_harbour();
        let returned = harbour.with_defaults(|mut params| params.set_a("given")).soon().unwrap();
        let returned = returned.get().unwrap();
        assert_eq!((text(returned.get_d()), text(returned.get_e())), ("given 88 calm".into(), "ebb".into()));
        let given = harbour.with_null_default(|_| ()).soon().unwrap();
        assert!(!given.get().unwrap().get_given());
        let given = harbour.with_null_default(|mut params| params.set_b(ship.clone())).soon().unwrap();
        assert!(given.get().unwrap().get_given());
        assert_eq!(books.calls(), 0);
    });
}

fn methods_called_like_keywords_of_other_languages(setting: Setting) {
    struct Speaker;
    macro_rules! methods {
        ($($name:ident $params:ident $results:ident),*) => {
            $(
                fn $name(&self, _: words::$params, _: words::$results<'_>) -> Result<()> {
                    Err(Error::failed(stringify!($name)))
                }
            )*
        };
    }
    impl words::Server for Speaker {
        methods!(
            delete DeleteParams DeleteResults,
            class ClassParams ClassResults,
            void VoidParams VoidResults,
            return_ ReturnParams ReturnResults
        );
    }
    offered(setting, words::Client::new(Speaker), |words| {
        let called = [
            words.delete().soon().unwrap_err(),
            words.class().soon().unwrap_err(),
            words.void().soon().unwrap_err(),
            words.return_().soon().unwrap_err(),
        ];
        for (error, name) in called.into_iter().zip(["delete", "class", "void", "return_"]) {
            assert!(error.to_string().ends_with(name), "{error}");
        }
    });
}

fn a_list_of_clients_and_any_pointer(setting: Setting) {
    let (object, books) = boat();
    offered(setting, object, |ship| {
        let (mine, my_books) = boat();
        let pilot = ship.pilot().soon().unwrap().get().unwrap().get_pilot().unwrap();
        let pointed = pilot.point(|mut params| {
            params.set_ship(mine.clone());
            params.reborrow().init_thing().set_as_capability(hook(&mine));
            let mut fleet = params.init_fleet(3);
            (0..3).for_each(|i| fleet.set(i, hook(&mine)));
        });
        pointed.soon().unwrap();
        assert_eq!((books.calls(), my_books.calls()), (1, 5));
    });
}
