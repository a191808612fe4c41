//! Uses the code of three schemas in two crates, one of them in a subdirectory.

mod schemas {
    capnp::generated_code!(pub mod animal_capnp, "sub/animal_capnp.rs");
    capnp::generated_code!(pub mod zoo_keeper_capnp);
}

use names::people_capnp::person;
use schemas::animal_capnp::animal;
use schemas::zoo_keeper_capnp::{keeper, shift};

fn main() -> capnp::Result<()> {
    let mut message = capnp::message::Builder::new_default();
    let mut shift: shift::Builder<'_> = message.init_root();
    shift.set_hours(8);
    let mut person: person::Builder<'_> = shift.reborrow().init_keeper();
    person.set_name("Ada");

    let shift = shift.into_reader();
    assert_eq!(shift.get_keeper()?.get_name()?, "Ada");
    let keys: capnp::Result<keeper::Client> = shift.get_keys();
    assert!(keys.is_err(), "there is a capability that nobody has set");

    let mut message = capnp::message::Builder::new_default();
    let animal: animal::Builder<'_> = message.init_root();
    println!("Ada works {} hours with an animal on {} legs", shift.get_hours(), animal.get_legs());
    Ok(())
}
