//! Interfaces that extend others: diamonds, bases without methods, upcasts.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::Mutex;

use capnp_threads::{Capability, Client, ExceptionKind, Result};

use crate::generated::inherit_capnp::*;
use crate::support::{hook, offered, text, Setting, Soon};

in_each_setting!(
    a_client_has_its_own_methods_and_upcasts_have_theirs,
    both_sides_of_a_diamond_lead_to_one_object,
    an_interface_that_adds_nothing_has_all_of_its_bases,
    upcasts_are_of_the_same_object,
    a_base_serves_on_its_own,
    an_interface_without_methods_is_a_capability,
    upcasts_are_given_and_taken,
    what_is_not_overridden_is_unimplemented,
    an_unknown_ordinal_is_unimplemented,
);

/// Has all the interfaces.
#[derive(Default)]
struct Bird {
    name: Mutex<String>,
    steps: AtomicU32,
    strokes: AtomicU32,
}

impl living::Server for Bird {
    fn age(&self, _: living::AgeParams, mut results: living::AgeResults<'_>) -> Result<()> {
        results.get().set_years(4);
        Ok(())
    }
}

impl named::Server for Bird {
    fn name(&self, _: named::NameParams, mut results: named::NameResults<'_>) -> Result<()> {
        results.get().set_name(&**self.name.lock().unwrap());
        Ok(())
    }

    fn rename(&self, params: named::RenameParams, _: named::RenameResults<'_>) -> Result<()> {
        *self.name.lock().unwrap() = params.get()?.get_name()?.to_string()?;
        Ok(())
    }
}

impl walker::Server for Bird {
    fn walk(&self, params: walker::WalkParams, mut results: walker::WalkResults<'_>) -> Result<()> {
        let steps = params.get()?.get_steps();
        results.get().set_total(steps + self.steps.fetch_add(steps, Ordering::SeqCst));
        Ok(())
    }
}

impl swimmer::Server for Bird {
    fn swim(&self, params: swimmer::SwimParams, mut results: swimmer::SwimResults<'_>) -> Result<()> {
        let strokes = params.get()?.get_strokes();
        results.get().set_total(strokes + self.strokes.fetch_add(strokes, Ordering::SeqCst));
        Ok(())
    }
}

impl duck::Server for Bird {
    fn quack(&self, params: duck::QuackParams, mut results: duck::QuackResults<'_>) -> Result<()> {
        results.get().set_sound(&*"quack ".repeat(params.get()?.get_times().into()));
        Ok(())
    }
}

impl quiet::Server for Bird {}
impl mallard::Server for Bird {}

struct Water;

impl pond::Server for Water {
    fn admit(&self, params: pond::AdmitParams, mut results: pond::AdmitResults<'_>) -> Result<()> {
        let guest = params.get()?.get_guest()?;
        results.get().set_guest(guest.into());
        Ok(())
    }

    fn quietest(&self, params: pond::QuietestParams, mut results: pond::QuietestResults<'_>) -> Result<()> {
        let guests = params.get()?.get_guests()?;
        results.get().set_guest(guests.get(guests.len() - 1)?);
        Ok(())
    }
}

fn name(of: &named::Client) -> String {
    text(of.name().soon().unwrap().get().unwrap().get_name())
}

fn rename(of: &named::Client, name: &str) {
    of.rename(|mut params| params.set_name(name)).soon().unwrap();
}

fn a_client_has_its_own_methods_and_upcasts_have_theirs(setting: Setting) {
    offered(setting, duck::Client::new(Bird::default()), |duck| {
        let quacked = duck.quack(|mut params| params.set_times(2)).soon().unwrap();
        assert_eq!(text(quacked.get().unwrap().get_sound()), "quack quack ");
        let walker = walker::Client::from(duck.clone());
        for total in [3, 6] {
            let walked = walker.walk(|mut params| params.set_steps(3)).soon().unwrap();
            assert_eq!(walked.get().unwrap().get_total(), total);
        }
        let swum = swimmer::Client::from(duck.clone()).swim(|mut params| params.set_strokes(5)).soon();
        assert_eq!(swum.unwrap().get().unwrap().get_total(), 5);
        let aged = living::Client::from(duck).age().soon().unwrap();
        assert_eq!(aged.get().unwrap().get_years(), 4);
    });
}

fn both_sides_of_a_diamond_lead_to_one_object(setting: Setting) {
    offered(setting, duck::Client::new(Bird::default()), |duck| {
        let left = named::Client::from(walker::Client::from(duck.clone()));
        let right = named::Client::from(swimmer::Client::from(duck.clone()));
        rename(&left, "Della");
        assert_eq!(name(&right), "Della");
        rename(&right, "Donald");
        assert_eq!(name(&left), "Donald");
        assert_eq!(name(&duck.into()), "Donald");
    });
}

fn an_interface_that_adds_nothing_has_all_of_its_bases(setting: Setting) {
    offered(setting, mallard::Client::new(Bird::default()), |mallard| {
        rename(&mallard.clone().into(), "Ludwig");
        assert_eq!(name(&duck::Client::from(mallard.clone()).into()), "Ludwig");
        let quacked = duck::Client::from(mallard.clone()).quack(|mut params| params.set_times(1)).soon();
        assert_eq!(text(quacked.unwrap().get().unwrap().get_sound()), "quack ");
        let aged = living::Client::from(mallard).age().soon().unwrap();
        assert_eq!(aged.get().unwrap().get_years(), 4);
    });
}

fn upcasts_are_of_the_same_object(setting: Setting) {
    offered(setting, mallard::Client::new(Bird::default()), |mallard| {
        let duck = duck::Client::from(mallard.clone());
        assert_eq!(named::Client::from(duck.clone()), named::Client::from(mallard.clone()));
        assert_eq!(named::Client::from(walker::Client::from(duck.clone())), duck.clone().into());
        assert_eq!(
            living::Client::from(duck.clone()),
            living::Client::from(swimmer::Client::from(duck.clone()))
        );
        let untyped = Client::from(mallard.clone());
        assert_eq!(untyped, Client::from(quiet::Client::from(mallard.clone())));
        assert_eq!(untyped, *duck.as_ref());
        assert_eq!(mallard::Client::from(untyped), mallard);
        assert_ne!(duck, duck::Client::new(Bird::default()));
    });
}

fn a_base_serves_on_its_own(setting: Setting) {
    struct Stone;
    impl living::Server for Stone {}
    offered(setting, living::Client::new(Stone), |stone| {
        let why = stone.age().soon().unwrap_err();
        assert_eq!(why.kind(), ExceptionKind::Unimplemented);
        assert!(why.to_string().contains("the method `age` of `Living` is not implemented"), "{why}");
    });
    offered(setting, living::Client::new(Bird::default()), |bird| {
        assert_eq!(bird.age().soon().unwrap().get().unwrap().get_years(), 4);
        // It was offered as no more than its base.
        let why = bird.cast_to::<named::Client>().name().soon().unwrap_err();
        assert_eq!(why.kind(), ExceptionKind::Unimplemented);
    });
}

fn an_interface_without_methods_is_a_capability(setting: Setting) {
    struct Mouse;
    impl quiet::Server for Mouse {}
    offered(setting, pond::Client::new(Water), |pond| {
        let (mouse, bird) = (quiet::Client::new(Mouse), mallard::Client::new(Bird::default()));
        let mut request = pond.quietest_request();
        let mut guests = request.get().init_guests(2);
        guests.set(0, hook(&bird));
        guests.set(1, hook(&mouse));
        let guest = request.send().soon().unwrap().get().unwrap().get_guest().unwrap();
        assert_eq!(guest.resolve().unwrap(), mouse);
        assert!(guest.wait_local_server::<Mouse>().unwrap().is_some());
        let why = guest.cast_to::<named::Client>().name().soon().unwrap_err();
        assert_eq!(why.kind(), ExceptionKind::Unimplemented);
    });
}

fn upcasts_are_given_and_taken(setting: Setting) {
    offered(setting, pond::Client::new(Water), |pond| {
        let duck = duck::Client::new(Bird::default());
        rename(&duck.clone().into(), "Daisy");
        let guest = pond.admit(|mut params| params.set_guest(duck.clone().into())).soon().unwrap();
        let guest = guest.get().unwrap().get_guest().unwrap();
        assert_eq!(name(&guest), "Daisy");
        assert_eq!(guest.resolve().unwrap(), named::Client::from(duck));
    });
}

fn what_is_not_overridden_is_unimplemented(setting: Setting) {
    struct Egg;
    impl living::Server for Egg {}
    impl named::Server for Egg {
        fn name(&self, _: named::NameParams, mut results: named::NameResults<'_>) -> Result<()> {
            results.get().set_name("egg");
            Ok(())
        }
    }
    impl walker::Server for Egg {}
    impl swimmer::Server for Egg {}
    impl duck::Server for Egg {}
    offered(setting, duck::Client::new(Egg), |egg| {
        assert_eq!(name(&egg.clone().into()), "egg");
        let quacked = egg.quack(|mut params| params.set_times(1)).soon().unwrap_err();
        let renamed = named::Client::from(egg.clone()).rename(|mut params| params.set_name("")).soon();
        let walked = walker::Client::from(egg).walk(|_| ()).soon().unwrap_err();
        let cases = [
            (quacked, "quack", "Duck"),
            (renamed.unwrap_err(), "rename", "Named"),
            (walked, "walk", "Walker"),
        ];
        for (why, method, interface) in cases {
            assert_eq!(why.kind(), ExceptionKind::Unimplemented);
            let wanted = format!("the method `{method}` of `{interface}` is not implemented");
            assert!(why.to_string().contains(&wanted), "{why}");
        }
    });
}

fn an_unknown_ordinal_is_unimplemented(setting: Setting) {
    offered(setting, mallard::Client::new(Bird::default()), |mallard| {
        let id = <named::Client as capnp::traits::HasTypeId>::TYPE_ID;
        let untyped: &Client = mallard.as_ref();
        let why = untyped.request(id, 2).send().soon().unwrap_err();
        assert_eq!(why.kind(), ExceptionKind::Unimplemented);
        assert!(untyped.request(id, 0).send().soon().is_ok());
    });
}
