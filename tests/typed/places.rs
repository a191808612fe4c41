//! Everywhere that a capability can stand: they go in, and come out again.

use capnp_threads::{Capability, Client, Result};

use crate::generated::places_capnp::*;
use crate::support::{hook, hooked, offered, text, Setting, Soon};

in_each_setting!(
    in_structs_within_structs,
    in_groups,
    in_each_variant_of_a_union,
    in_lists,
    in_lists_of_structs_and_of_lists,
    in_a_union_that_is_a_field,
    in_pointers_of_any_kind,
    in_results_of_any_kind,
    one_client_in_many_places,
    fields_that_are_not_set,
    calls_are_made_ahead_to_places,
);

struct Tag(String);

impl item::Server for Tag {
    fn label(&self, _: item::LabelParams, mut results: item::LabelResults<'_>) -> Result<()> {
        results.get().set_label(&*self.0);
        Ok(())
    }
}

fn tag(label: &str) -> item::Client {
    item::Client::new(Tag(label.to_owned()))
}

fn label(item: &item::Client) -> Result<String> {
    Ok(item.label().wait()?.get()?.get_label()?.to_string()?)
}

struct Yard;

impl depot::Server for Yard {
    fn store(&self, params: depot::StoreParams, mut results: depot::StoreResults<'_>) -> Result<()> {
        Ok(results.get().set_crate(params.get()?.get_crate()?)?)
    }

    fn untyped(&self, params: depot::UntypedParams, mut results: depot::UntypedResults<'_>) -> Result<()> {
        results.set(params.get()?)
    }

    fn item(&self, params: depot::ItemParams, mut results: depot::ItemResults<'_>) -> Result<()> {
        results.get().set_item(params.get()?.get_item()?);
        Ok(())
    }

    fn items(&self, params: depot::ItemsParams, mut results: depot::ItemsResults<'_>) -> Result<()> {
        // The other way round.
        let items = params.get()?.get_items()?;
        let mut turned = results.get().init_items(items.len());
        for i in 0..items.len() {
            turned.set(items.len() - 1 - i, hook(&items.get(i)?));
        }
        Ok(())
    }

    fn pointer(&self, params: depot::PointerParams, mut results: depot::PointerResults<'_>) -> Result<()> {
        Ok(results.get().init_pointer().set_as(params.get()?.get_pointer())?)
    }

    fn struct_(&self, params: depot::StructParams, mut results: depot::StructResults<'_>) -> Result<()> {
        Ok(results.get().init_struct().set_as(params.get()?.get_struct())?)
    }

    fn list(&self, params: depot::ListParams, mut results: depot::ListResults<'_>) -> Result<()> {
        Ok(results.get().init_list().set_as(params.get()?.get_list())?)
    }

    fn capability(
        &self,
        params: depot::CapabilityParams,
        mut results: depot::CapabilityResults<'_>,
    ) -> Result<()> {
        let client: Client = params.get()?.get_capability()?;
        results.get().set_capability(client);
        Ok(())
    }

    fn labels(&self, params: depot::LabelsParams, mut results: depot::LabelsResults<'_>) -> Result<()> {
        let items = all(params.get()?.get_crate()?)?;
        let mut labels = results.get().init_labels(items.len() as u32);
        for (i, item) in items.iter().enumerate() {
            labels.set(i as u32, &*label(item)?);
        }
        Ok(())
    }
}

/// All items in a crate, in the order of its declaration.
fn all(given: crate_::Reader<'_>) -> Result<Vec<item::Client>> {
    let mut items = Vec::new();
    if given.has_item() {
        items.push(given.get_item()?);
    }
    held(given.get_holder()?, &mut items)?;
    if given.get_side().has_item() {
        items.push(given.get_side().get_item()?);
    }
    if given.get_side().get_back().has_item() {
        items.push(given.get_side().get_back().get_item()?);
    }
    held(given.get_side().get_back().get_holder()?, &mut items)?;
    match given.which()? {
        crate_::Nothing(()) => {}
        crate_::One(item) => items.push(item?),
        crate_::Many(many) => items.extend(many?.iter().collect::<capnp::Result<Vec<_>>>()?),
        crate_::Held(holder) => held(holder?, &mut items)?,
        crate_::Two(two) => items.extend([two.get_left()?, two.get_right()?]),
    }
    items.extend(given.get_items()?.iter().collect::<capnp::Result<Vec<_>>>()?);
    for holder in given.get_holders()? {
        held(holder, &mut items)?;
    }
    for row in given.get_table()?.iter() {
        items.extend(row?.iter().collect::<capnp::Result<Vec<_>>>()?);
    }
    match given.get_pick().which()? {
        crate_::pick::None(()) => {}
        crate_::pick::Item(item) => items.push(item?),
        crate_::pick::Any(any) => items.push(any.get_as_capability()?),
    }
    Ok(items)
}

fn held(holder: holder::Reader<'_>, items: &mut Vec<item::Client>) -> Result<()> {
    if holder.has_item() {
        items.push(holder.get_item()?);
    }
    match holder.has_inner() {
        true => held(holder.get_inner()?, items),
        false => Ok(()),
    }
}

/// Sends a crate to the depot: there all items in it are called, and then here those that came back.
#[track_caller]
fn round_trip(setting: Setting, labels: &[&str], fill: impl Fn(crate_::Builder<'_>)) {
    offered(setting, depot::Client::new(Yard), |depot| {
        let called = depot.labels(|params| fill(params.init_crate())).soon().unwrap();
        let called = called.get().unwrap().get_labels().unwrap();
        assert_eq!(called.iter().map(text).collect::<Vec<_>>(), labels);
        let stored = depot.store(|params| fill(params.init_crate())).soon().unwrap();
        let items = all(stored.get().unwrap().get_crate().unwrap()).unwrap();
        assert_eq!(items.iter().map(|item| label(item).unwrap()).collect::<Vec<_>>(), labels);
        // They have come home.
        assert!(items.iter().all(|item| item
            .resolve()
            .unwrap()
            .wait_local_server::<Tag>()
            .unwrap()
            .is_some()));
    });
}

fn in_structs_within_structs(setting: Setting) {
    round_trip(setting, &["a", "b", "c"], |mut given| {
        given.set_item(tag("a"));
        let mut holder = given.init_holder();
        holder.set_item(tag("b"));
        holder.init_inner().init_inner().set_item(tag("c"));
    });
}

fn in_groups(setting: Setting) {
    round_trip(setting, &["a", "b", "c", "d"], |given| {
        let mut side = given.init_side();
        side.set_item(tag("a"));
        let mut back = side.init_back();
        back.set_item(tag("b"));
        let mut holder = back.init_holder();
        holder.set_item(tag("c"));
        holder.init_inner().set_item(tag("d"));
    });
}

fn in_each_variant_of_a_union(setting: Setting) {
    round_trip(setting, &[], |mut given| given.set_nothing(()));
    round_trip(setting, &["one"], |mut given| given.set_one(tag("one")));
    round_trip(setting, &["x", "y"], |given| {
        let mut many = given.init_many(2);
        many.set(0, hook(&tag("x")));
        many.set(1, hook(&tag("y")));
    });
    round_trip(setting, &["held"], |given| given.init_held().init_inner().set_item(tag("held")));
    round_trip(setting, &["left", "right"], |given| {
        let mut two = given.init_two();
        two.set_left(tag("left"));
        two.set_right(tag("right"));
    });
}

fn in_lists(setting: Setting) {
    round_trip(setting, &["0", "1", "2"], |given| {
        let mut items = given.init_items(3);
        (0..3).for_each(|i| items.set(i, hook(&tag(&i.to_string()))));
    });
    offered(setting, depot::Client::new(Yard), |depot| {
        let mine = [tag("a"), tag("b"), tag("c")];
        let turned = depot.items(|params| {
            let mut items = params.init_items(3);
            (0..3).for_each(|i| items.set(i, hook(&mine[i as usize])));
        });
        let turned = turned.soon().unwrap();
        let turned = turned.get().unwrap().get_items().unwrap();
        let turned: Vec<_> = turned.iter().map(|item| item.unwrap().resolve().unwrap()).collect();
        assert_eq!(turned, [mine[2].clone(), mine[1].clone(), mine[0].clone()]);
    });
}

fn in_lists_of_structs_and_of_lists(setting: Setting) {
    round_trip(setting, &["a", "b", "c", "d", "e"], |mut given| {
        let mut holders = given.reborrow().init_holders(2);
        holders.reborrow().get(0).set_item(tag("a"));
        holders.get(1).init_inner().set_item(tag("b"));
        let mut table = given.init_table(2);
        table.reborrow().init(0, 1).set(0, hook(&tag("c")));
        let mut row = table.init(1, 2);
        row.set(0, hook(&tag("d")));
        row.set(1, hook(&tag("e")));
    });
}

fn in_a_union_that_is_a_field(setting: Setting) {
    round_trip(setting, &["picked"], |given| given.init_pick().set_item(tag("picked")));
    round_trip(setting, &["any"], |given| {
        given.init_pick().init_any().set_as_capability(hook(&tag("any")));
    });
}

fn in_pointers_of_any_kind(setting: Setting) {
    offered(setting, depot::Client::new(Yard), |depot| {
        let mine = [tag("pointer"), tag("struct"), tag("list"), tag("capability")];
        let given = depot.untyped(|mut params| {
            let pointer = params.reborrow().init_pointer();
            pointer.init_as::<holder::Builder<'_>>().init_inner().set_item(mine[0].clone());
            params.reborrow().init_struct().init_as::<holder::Builder<'_>>().set_item(mine[1].clone());
            let list = params.reborrow().init_list();
            let mut list = list.initn_as::<capnp::capability_list::Builder<'_, item::Client>>(1);
            list.set(0, hook(&mine[2]));
            params.set_capability(mine[3].clone());
        });
        let given = given.soon().unwrap();
        let given = given.get().unwrap();
        let pointer = given.get_pointer().get_as::<holder::Reader<'_>>().unwrap();
        let list = given.get_list().get_as::<capnp::capability_list::Reader<'_, item::Client>>().unwrap();
        let back = [
            pointer.get_inner().unwrap().get_item().unwrap(),
            given.get_struct().get_as::<holder::Reader<'_>>().unwrap().get_item().unwrap(),
            list.get(0).unwrap(),
            given.get_capability().unwrap().cast_to(),
        ];
        assert_eq!(back.map(|item| item.resolve().unwrap()), mine);
    });
}

fn in_results_of_any_kind(setting: Setting) {
    offered(setting, depot::Client::new(Yard), |depot| {
        let mine = tag("mine");
        let pointer =
            depot.pointer(|params| params.init_pointer().set_as_capability(hook(&mine))).soon().unwrap();
        let pointer: item::Client = pointer.get().unwrap().get_pointer().get_as_capability().unwrap();
        let given = depot.struct_(|params| {
            params.init_struct().init_as::<holder::Builder<'_>>().set_item(mine.clone());
        });
        let given = given.soon().unwrap();
        let given = given.get().unwrap().get_struct().get_as::<holder::Reader<'_>>().unwrap();
        let list = depot.list(|params| {
            let list = params.init_list();
            let mut list = list.initn_as::<capnp::capability_list::Builder<'_, item::Client>>(2);
            list.set(1, hook(&mine));
        });
        let list = list.soon().unwrap();
        let list = list.get().unwrap().get_list();
        let list = list.get_as::<capnp::capability_list::Reader<'_, item::Client>>().unwrap();
        let capability = depot.capability(|mut params| params.set_capability(mine.clone()));
        let capability = capability.soon().unwrap();
        let capability = capability.get().unwrap().get_capability().unwrap().cast_to();
        let item = depot.item(|mut params| params.set_item(mine.clone())).soon().unwrap();
        let back = [pointer, given.get_item().unwrap(), list.get(1).unwrap(), capability];
        assert_eq!(back.map(|item| item.resolve().unwrap()), [&mine; 4].map(Clone::clone));
        assert_eq!(item.get().unwrap().get_item().unwrap().resolve().unwrap(), mine);
        assert!(list.get(0).is_err());
    });
}

fn one_client_in_many_places(setting: Setting) {
    let one = tag("one");
    round_trip(setting, &["one"; 6], |mut given| {
        given.set_item(one.clone());
        given.set_one(one.clone());
        given.reborrow().init_side().init_back().set_item(one.clone());
        let mut items = given.reborrow().init_items(2);
        (0..2).for_each(|i| items.set(i, hook(&one)));
        given.init_pick().set_item(one.clone());
    });
}

fn fields_that_are_not_set(setting: Setting) {
    offered(setting, depot::Client::new(Yard), |depot| {
        let stored = depot.store(|params| {
            let mut given = params.init_crate();
            given.set_one(item::Client::null());
            given.init_items(1);
        });
        let stored = stored.soon().unwrap();
        let stored = stored.get().unwrap().get_crate().unwrap();
        // What was never set is a null pointer, which is an error to the `capnp` crate.
        assert!(!stored.has_item());
        assert!(stored.get_item().is_err());
        assert!(!stored.get_holder().unwrap().has_item());
        assert!(stored.get_items().unwrap().get(0).is_err());
        // The null capability, set, is a capability.
        let crate_::One(one) = stored.which().unwrap() else { panic!("another variant") };
        let one = one.unwrap();
        assert!(one.is_null());
        assert!(one.label().soon().is_err());
    });
}

fn calls_are_made_ahead_to_places(setting: Setting) {
    offered(setting, depot::Client::new(Yard), |depot| {
        let stored = depot.store(|params| {
            let mut given = params.init_crate();
            given.set_item(tag("a"));
            given.reborrow().init_holder().init_inner().set_item(tag("b"));
            let mut back = given.reborrow().init_side().init_back();
            back.set_item(tag("c"));
            back.init_holder().set_item(tag("d"));
        });
        let ahead = stored.pipeline.get().get_crate();
        let items = [
            ahead.get_item(),
            ahead.get_holder().get_inner().get_item(),
            ahead.get_side().get_back().get_item(),
            ahead.get_side().get_back().get_holder().get_item(),
        ];
        assert_eq!(items.map(|item| label(&item).unwrap()), ["a", "b", "c", "d"]);
        let untyped = depot.untyped(|params| {
            params.init_pointer().init_as::<holder::Builder<'_>>().set_item(tag("any"));
        });
        let any = untyped.pipeline.get().get_pointer().get_pointer_field(0);
        assert_eq!(label(&hooked(any.as_cap())).unwrap(), "any");
        // What is not there is the null capability.
        let none = ahead.get_holder().get_item();
        assert!(label(&none).is_err());
        assert!(none.is_null());
    });
}
