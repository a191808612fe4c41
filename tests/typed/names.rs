//! Names that mean something to the Rust compiler, or to the clients themselves.

use std::sync::atomic::{AtomicU64, Ordering};

use capnp_threads::{Capability, Client, Result, Stream};

use crate::generated::methods_capnp::*;
use crate::support::{offered, text, Setting, Soon};

in_each_setting!(
    methods_and_params_are_called_like_keywords,
    fields_are_called_like_keywords,
    interfaces_are_returned_under_keywords,
    types_are_called_like_keywords,
    a_streaming_method_is_called_like_a_keyword,
    methods_are_called_like_ours,
    a_method_is_called_like_what_begins_another,
    what_is_hidden_is_reached_through_the_trait,
    params_are_called_like_ours,
);

#[derive(Default)]
struct Speaker {
    loops: AtomicU64,
}

impl words::Server for Speaker {
    fn type_(&self, params: words::TypeParams, mut results: words::TypeResults<'_>) -> Result<()> {
        results.get().set_type(params.get()?.get_type()?);
        Ok(())
    }

    fn self_(&self, params: words::SelfParams, mut results: words::SelfResults<'_>) -> Result<()> {
        results.get().set_self(params.get()?.get_self()?);
        Ok(())
    }

    fn move_(&self, params: words::MoveParams, mut results: words::MoveResults<'_>) -> Result<()> {
        results.get().set_move(params.get()?.get_move()?);
        Ok(())
    }

    fn use_(&self, params: words::UseParams, mut results: words::UseResults<'_>) -> Result<()> {
        results.set(params.get()?)
    }

    fn match_(&self, params: words::MatchParams, mut results: words::MatchResults<'_>) -> Result<()> {
        let matched = if params.get()?.get_match() { words::Match::If } else { words::Match::Loop };
        results.get().set_match(matched);
        Ok(())
    }

    fn fn_(&self, _: words::FnParams, mut results: words::FnResults<'_>) -> Result<()> {
        results.get().set_fn(words::Client::new(Speaker::default()));
        Ok(())
    }

    fn loop_(&self, params: words::LoopParams, _: words::LoopResults<'_>) -> Result<()> {
        self.loops.fetch_add(params.get()?.get_loop(), Ordering::SeqCst);
        Ok(())
    }

    fn async_(&self, params: words::AsyncParams, mut results: words::AsyncResults<'_>) -> Result<()> {
        results.get().set_async(params.get()?.get_async()?);
        Ok(())
    }

    fn await_(&self, _: words::AwaitParams, _: words::AwaitResults<'_>) -> Result<()> {
        Ok(())
    }

    fn dyn_(&self, params: words::DynParams, mut results: words::DynResults<'_>) -> Result<()> {
        results.get().set_dyn(params.get()?.get_dyn()?);
        Ok(())
    }

    fn try_(&self, params: words::TryParams, mut results: words::TryResults<'_>) -> Result<()> {
        results.get().set_try(params.get()?.get_try());
        Ok(())
    }

    fn struct_(&self, _: words::StructParams, mut results: words::StructResults<'_>) -> Result<()> {
        results.get().init_struct().set_enum(words::Match::Else);
        Ok(())
    }

    fn super_(&self, _: words::SuperParams, _: words::SuperResults<'_>) -> Result<()> {
        Ok(())
    }

    fn crate_(&self, _: words::CrateParams, _: words::CrateResults<'_>) -> Result<()> {
        Ok(())
    }

    fn where_(&self, _: words::WhereParams, mut results: words::WhereResults<'_>) -> Result<()> {
        results.get().set_loop(self.loops.load(Ordering::SeqCst));
        Ok(())
    }
}

fn speaker() -> words::Client {
    words::Client::new(Speaker::default())
}

fn methods_and_params_are_called_like_keywords(setting: Setting) {
    offered(setting, speaker(), |words| {
        let said = words.type_(|mut params| params.set_type("a")).soon().unwrap();
        assert_eq!(text(said.get().unwrap().get_type()), "a");
        let mut request = words.type_request();
        request.get().set_type("b");
        assert_eq!(text(request.send().soon().unwrap().get().unwrap().get_type()), "b");
        let said = words.self_(|mut params| params.set_self("c")).soon().unwrap();
        assert_eq!(text(said.get().unwrap().get_self()), "c");
        let said = words.async_(|mut params| params.set_async("d")).soon().unwrap();
        assert_eq!(text(said.get().unwrap().get_async()), "d");
        let mut request = words.async_request();
        request.get().set_async("e");
        assert_eq!(text(request.send().soon().unwrap().get().unwrap().get_async()), "e");
        let said = words.try_(|mut params| params.set_try(6)).soon().unwrap();
        assert_eq!(said.get().unwrap().get_try(), 6);
        words.await_().soon().unwrap();
        words.super_().soon().unwrap();
        words.crate_().soon().unwrap();
    });
}

fn fields_are_called_like_keywords(setting: Setting) {
    offered(setting, speaker(), |words| {
        let (one, two) = (speaker(), speaker());
        let used = words.use_(|mut fields| {
            fields.set_type(1);
            fields.set_self("self");
            fields.reborrow().init_move(1).get(0).set_type(2);
            fields.reborrow().init_use().set_type(3);
            let mut matched = fields.reborrow().init_match();
            matched.set_fn(4);
            matched.set_loop(one.clone());
            fields.init_async().set_try(two.clone());
        });
        let used = used.soon().unwrap();
        let used = used.get().unwrap();
        assert_eq!((used.get_type(), text(used.get_self())), (1, "self".into()));
        assert_eq!(used.get_move().unwrap().get(0).get_type(), 2);
        assert_eq!(used.get_use().unwrap().get_type(), 3);
        assert_eq!(used.get_match().get_fn(), 4);
        assert_eq!(used.get_match().get_loop().unwrap().resolve().unwrap(), one);
        match used.get_async().which().unwrap() {
            fields::async_::Try(client) => assert_eq!(client.unwrap().resolve().unwrap(), two),
            _ => panic!("another variant"),
        }
        let used = words.use_(|fields| fields.init_async().set_self("variant")).soon().unwrap();
        match used.get().unwrap().get_async().which().unwrap() {
            fields::async_::Self_(said) => assert_eq!(text(said), "variant"),
            _ => panic!("another variant"),
        }
    });
}

fn interfaces_are_returned_under_keywords(setting: Setting) {
    offered(setting, speaker(), |words| {
        let mine = speaker();
        let moved = words.move_(|mut params| params.set_move(mine.clone())).soon().unwrap();
        assert_eq!(moved.get().unwrap().get_move().unwrap().resolve().unwrap(), mine);
        let moved = words.dyn_(|mut params| params.set_dyn(mine.clone())).soon().unwrap();
        assert_eq!(moved.get().unwrap().get_dyn().unwrap().resolve().unwrap(), mine);
        let pipelined = words.fn_().pipeline.get().get_fn();
        let said = pipelined.self_(|mut params| params.set_self("ahead")).soon().unwrap();
        assert_eq!(text(said.get().unwrap().get_self()), "ahead");
    });
}

fn types_are_called_like_keywords(setting: Setting) {
    struct Giving;
    impl words::yield_::Server for Giving {
        fn return_(
            &self,
            _: words::yield_::ReturnParams,
            mut results: words::yield_::ReturnResults<'_>,
        ) -> Result<()> {
            results.get().set_true(true);
            Ok(())
        }
    }
    offered(setting, words::yield_::Client::new(Giving), |giving| {
        assert!(giving.return_().soon().unwrap().get().unwrap().get_true());
    });
    offered(setting, speaker(), |words| {
        let matched = words.match_(|mut params| params.set_match(true)).soon().unwrap();
        assert_eq!(matched.get().unwrap().get_match().unwrap(), words::Match::If);
        let given = words.struct_().soon().unwrap();
        let given = given.get().unwrap().get_struct().unwrap();
        assert_eq!(given.get_enum().unwrap(), words::Match::Else);
        let mut message = capnp::message::Builder::new_default();
        let default: words::struct_::Builder<'_> = message.init_root();
        assert_eq!(default.get_enum().unwrap(), words::Match::Self_);
    });
}

fn a_streaming_method_is_called_like_a_keyword(setting: Setting) {
    offered(setting, speaker(), |words| {
        let stream = Stream::new();
        for n in 1..=4 {
            words.loop_(&stream, |mut params| params.set_loop(n)).unwrap();
        }
        stream.finish().unwrap();
        assert_eq!(words.where_().soon().unwrap().get().unwrap().get_loop(), 10);
    });
}

/// Answers with the name of the method, and the text it was called with.
struct Namesake;

macro_rules! answers {
    (with: $($with:ident $with_params:ident $with_results:ident),*; without: $($name:ident $params:ident $results:ident),* $(,)?) => {
        $(
            fn $with(&self, params: collisions::$with_params, mut results: collisions::$with_results<'_>) -> Result<()> {
                let given = params.get()?.get_text()?.to_str()?;
                results.get().set_text(&*format!("{} {given}", stringify!($with)));
                Ok(())
            }
        )*
        $(
            fn $name(&self, _: collisions::$params, mut results: collisions::$results<'_>) -> Result<()> {
                results.get().set_text(stringify!($name));
                Ok(())
            }
        )*
    };
}

impl collisions::Server for Namesake {
    answers!(
        with:
            new NewParams NewResults,
            null NullParams NullResults,
            clone CloneParams CloneResults,
            resolve ResolveParams ResolveResults,
            request RequestParams RequestResults,
            from FromParams FromResults,
            foo FooParams FooResults,
            foo_request FooRequestParams FooRequestResults,
            foo_request_request FooRequestRequestParams FooRequestRequestResults;
        without:
            into IntoParams IntoResults,
            broken BrokenParams BrokenResults,
            promise PromiseParams PromiseResults,
            is_null IsNullParams IsNullResults,
            cast_to CastToParams CastToResults,
            as_ref AsRefParams AsRefResults,
            eq EqParams EqResults,
            dispatch DispatchParams DispatchResults,
            drop DropParams DropResults,
            local_server LocalServerParams LocalServerResults,
            with_pool WithPoolParams WithPoolResults,
    );

    fn params(
        &self,
        params: collisions::ParamsParams,
        mut results: collisions::ParamsResults<'_>,
    ) -> Result<()> {
        let params = params.get()?;
        let all = [params.get_results()?, params.get_call()?, params.get_server()?];
        let all: Result<Vec<&str>, _> = all.iter().map(|text| text.to_str()).collect();
        results.get().set_params(&*all?.join("+"));
        Ok(())
    }

    fn fill(&self, params: collisions::FillParams, _: collisions::FillResults<'_>) -> Result<()> {
        let params = params.get()?;
        assert_eq!(params.get_fill()?, "f");
        assert_eq!(params.get_stream()?, "s");
        Ok(())
    }

    fn client(
        &self,
        params: collisions::ClientParams,
        mut results: collisions::ClientResults<'_>,
    ) -> Result<()> {
        let given = params.get()?.get_client()?;
        let mut client = results.get().init_client();
        client.set_client(given.get_hook()?);
        client.set_hook(given.get_client()?);
        Ok(())
    }
}

fn namesake() -> collisions::Client {
    <collisions::Client as Capability>::new(Namesake)
}

fn methods_are_called_like_ours(setting: Setting) {
    offered(setting, namesake(), |object| {
        macro_rules! said {
            ($method:ident, $text:expr) => {{
                let response = object.$method(|mut params| params.set_text($text)).soon().unwrap();
                text(response.get().unwrap().get_text())
            }};
            ($method:ident) => {
                text((&object).$method().soon().unwrap().get().unwrap().get_text())
            };
        }
        assert_eq!(said!(new, "1"), "new 1");
        assert_eq!(said!(null, "2"), "null 2");
        assert_eq!(said!(clone, "3"), "clone 3");
        assert_eq!(said!(resolve, "4"), "resolve 4");
        assert_eq!(said!(request, "5"), "request 5");
        assert_eq!(said!(from, "6"), "from 6");
        // Methods of traits that take `self` itself (`into`, `cast_to`) come first on a client, and not on a
        // reference to it.
        assert_eq!(said!(into), "into");
        assert_eq!(said!(broken), "broken");
        assert_eq!(said!(promise), "promise");
        assert_eq!(said!(is_null), "is_null");
        assert_eq!(said!(cast_to), "cast_to");
        assert_eq!(said!(as_ref), "as_ref");
        assert_eq!(said!(eq), "eq");
        assert_eq!(said!(dispatch), "dispatch");
        assert_eq!(said!(drop), "drop");
        assert_eq!(said!(local_server), "local_server");
        assert_eq!(said!(with_pool), "with_pool");
    });
}

fn a_method_is_called_like_what_begins_another(setting: Setting) {
    offered(setting, namesake(), |object| {
        // `foo_request` begins a call of `foo`, whatever else is called so.
        let mut request = object.foo_request();
        request.get().set_text("x");
        assert_eq!(text(request.send().soon().unwrap().get().unwrap().get_text()), "foo x");
        let mut request = object.foo_request_request();
        request.get().set_text("y");
        assert_eq!(text(request.send().soon().unwrap().get().unwrap().get_text()), "foo_request y");
        let mut request = object.foo_request_request_request();
        request.get().set_text("z");
        let said = request.send().soon().unwrap();
        assert_eq!(text(said.get().unwrap().get_text()), "foo_request_request z");
        let said = object.foo(|mut params| params.set_text("w")).soon().unwrap();
        assert_eq!(text(said.get().unwrap().get_text()), "foo w");
    });
}

fn what_is_hidden_is_reached_through_the_trait(setting: Setting) {
    offered(setting, namesake(), |object| {
        let copy = Clone::clone(&object);
        assert!(PartialEq::eq(&copy, &object));
        assert!(!Capability::is_null(&object));
        assert!(Capability::is_null(&<collisions::Client as Capability>::null()));
        let resolved = Capability::resolve(&object).unwrap();
        assert!(Capability::local_server::<Namesake>(&resolved).is_some() != setting.is_remote());
        let untyped: Client = Into::into(copy);
        assert!(AsRef::<Client>::as_ref(&object) == &untyped);
    });
}

fn params_are_called_like_ours(setting: Setting) {
    offered(setting, namesake(), |object| {
        let said = object.params(|mut params| {
            params.set_results("r");
            params.set_call("c");
            params.set_server("s");
        });
        assert_eq!(text(said.soon().unwrap().get().unwrap().get_params()), "r+c+s");
        let stream = Stream::new();
        object
            .fill(&stream, |mut params| {
                params.set_fill("f");
                params.set_stream("s");
            })
            .unwrap();
        stream.finish().unwrap();
        let (one, two) = (namesake(), namesake());
        let swapped = object.client(|params| {
            let mut client = params.init_client();
            client.set_client(Clone::clone(&one));
            client.set_hook(Clone::clone(&two));
        });
        let swapped = swapped.soon().unwrap();
        let swapped = swapped.get().unwrap().get_client().unwrap();
        assert_eq!(Capability::resolve(&swapped.get_client().unwrap()).unwrap(), two);
        assert_eq!(Capability::resolve(&swapped.get_hook().unwrap()).unwrap(), one);
    });
}
