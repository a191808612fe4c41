//! Shapes of schemas that are rare, and names that generated code has a use for.

use capnp::message::Builder;
use capnp_threads::{Capability, Client, Result};

use crate::generated::odd_shapes_capnp::*;
use crate::generated::places_capnp::item;
use crate::support::{hook, offered, text, Setting, Soon};

in_each_setting!(
    declarations_in_a_generic_interface_do_without_its_parameter,
    capabilities_of_any_interface_are_listed,
    variants_are_called_as_generated_types,
    structs_are_called_as_those_of_methods,
    parameters_are_called_as_generated_types,
    types_come_from_a_file_that_an_imported_file_imports,
);

struct Tag(&'static str);

impl item::Server for Tag {
    fn label(&self, _: item::LabelParams, mut results: item::LabelResults<'_>) -> Result<()> {
        results.get().set_label(self.0);
        Ok(())
    }
}

fn tag(label: &'static str) -> item::Client {
    item::Client::new(Tag(label))
}

fn label(client: &Client) -> String {
    let item: item::Client = client.cast_to();
    text(item.label().soon().unwrap().get().unwrap().get_label())
}

struct Board;

type Text = capnp::text::Owned;

impl shelf::Server<Text> for Board {
    fn put(&self, params: shelf::PutParams<Text>, mut results: shelf::PutResults<'_, Text>) -> Result<()> {
        let params = params.get()?;
        let mut results = results.get();
        results.set_value(params.get_value()?)?;
        results.reborrow().init_marks(1).set_with_caveats(0, params.get_mark()?)?;
        results.init_orders(1).set(0, params.get_order()?);
        Ok(())
    }
}

fn declarations_in_a_generic_interface_do_without_its_parameter(setting: Setting) {
    assert_eq!(shelf::FIRST.get().unwrap().get_order().unwrap(), shelf::Order::Falling);
    offered(setting, shelf::Client::<Text>::new(Board), |shelf| {
        let put = shelf.put(|mut params| {
            params.set_value("worth").unwrap();
            params.set_order(shelf::Order::Falling);
            params.init_mark().set_text("here");
        });
        let put = put.soon().unwrap();
        let put = put.get().unwrap();
        assert_eq!(text(put.get_value()), "worth");
        assert_eq!(put.get_orders().unwrap().get(0).unwrap(), shelf::Order::Falling);
        let mark = put.get_marks().unwrap().get(0);
        let Ok(shelf::mark::Text(said)) = mark.which() else { panic!("another variant") };
        assert_eq!(text(said), "here");
        // The schema in the code is that of the file.
        assert!(format!("{mark:?}").contains("text = \"here\""), "{mark:?}");
    });
}

struct Desk;

impl keeper::Server for Desk {
    fn keep(&self, params: keeper::KeepParams, mut results: keeper::KeepResults<'_>) -> Result<()> {
        results.set(params.get()?)
    }

    fn chosen(&self, params: keeper::ChosenParams, mut results: keeper::ChosenResults<'_>) -> Result<()> {
        results.set(params.get()?)
    }
}

fn capabilities_of_any_interface_are_listed(setting: Setting) {
    offered(setting, keeper::Client::new(Desk), |keeper| {
        let kept = keeper.keep(|mut lists| {
            let mut capabilities = lists.reborrow().init_capabilities(2);
            capabilities.set(0, hook(&tag("a")));
            capabilities.set(1, hook(&tag("b")));
            lists.reborrow().init_table(1).init(0, 1).set(0, hook(&tag("c")));
            let untyped = lists.reborrow().init_lists(2);
            let list = untyped.get(1).initn_as::<capnp::capability_list::Builder<'_, Client>>(1);
            { list }.set(0, hook(&tag("d")));
            // The setter takes a client of whatever interface, and an untyped one.
            lists.set_one(tag("e"));
            lists.init_choice().set_capability(Client::from(tag("f")));
        });
        assert_eq!(label(&kept.pipeline.get().get_one()), "e");
        let kept = kept.soon().unwrap();
        let lists = kept.get().unwrap();
        let capabilities: Vec<Client> =
            lists.get_capabilities().unwrap().iter().collect::<capnp::Result<_>>().unwrap();
        assert_eq!(capabilities.iter().map(label).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(label(&lists.get_table().unwrap().get(0).unwrap().get(0).unwrap()), "c");
        let untyped = lists.get_lists().unwrap();
        assert!(untyped.get(0).is_null());
        let list = untyped.get(1).get_as::<capnp::capability_list::Reader<'_, Client>>().unwrap();
        assert_eq!(label(&list.get(0).unwrap()), "d");
        assert_eq!(label(&lists.get_one().unwrap()), "e");
        let choice = lists.get_choice().unwrap();
        let Ok(choice::Capability(client)) = choice.which() else { panic!("another variant") };
        assert_eq!(label(&client.unwrap()), "f");
        assert!(format!("{lists:?}").starts_with("(capabilities = "), "{lists:?}");
    });
}

fn variants_are_called_as_generated_types(setting: Setting) {
    type Chosen<'a> = choice::Builder<'a, Text, capnp::data::Owned>;
    let ask = |keeper: &keeper::Client, fill: &dyn Fn(Chosen<'_>)| keeper.chosen(fill).soon().unwrap();
    offered(setting, keeper::Client::new(Desk), |keeper| {
        let response = ask(&keeper, &|mut choice| choice.set_reader("read"));
        let Ok(choice::Which::Reader(said)) = response.get().unwrap().which() else { panic!("not it") };
        assert_eq!(text(said), "read");
        let response = ask(&keeper, &|mut choice| choice.set_builder(7));
        assert!(matches!(response.get().unwrap().which(), Ok(choice::Which::Builder(7))));
        let response = ask(&keeper, &|mut choice| choice.set_kind(choice::Kind::Bad));
        let kind = response.get().unwrap().which();
        assert!(matches!(kind, Ok(choice::Which::Kind(Ok(choice::Kind::Bad)))));
        let response = ask(&keeper, &|mut choice| choice.set_shelf(shelf::Client::new(Board)));
        let Ok(choice::Shelf(shelf)) = response.get().unwrap().which() else { panic!("not it") };
        let put = shelf.unwrap().put(|mut params| params.set_value("ahead").unwrap()).soon().unwrap();
        assert_eq!(text(put.get().unwrap().get_value()), "ahead");
        let response = ask(&keeper, &|choice| choice.init_group().set_left("left").unwrap());
        let Ok(choice::Group(group)) = response.get().unwrap().which() else { panic!("not it") };
        assert_eq!(text(group.get_left()), "left");
    });
    let mut message = Builder::new_default();
    let mut alone: alone::Builder<'_, Text> = message.init_root();
    alone.set_nothing(());
    assert!(matches!(alone.into_reader().which(), Ok(alone::Nothing(()))));
}

struct Mover;

impl called::Server for Mover {
    fn move_(&self, params: called::MoveParams, mut results: called::MoveResults<'_>) -> Result<()> {
        assert_eq!(params.get()?.get_of()?.get_text()?, "of");
        results.get().set_kind(called::MoveResults_::B);
        results.get().set_client(called::Client_::B);
        results.get().set_box(called::Box::B);
        Ok(())
    }
}

fn structs_are_called_as_those_of_methods(setting: Setting) {
    offered(setting, called::Client::new(Mover), |mover| {
        let moved = mover.move_(|params| params.init_of().set_text("of")).soon().unwrap();
        let moved = moved.get().unwrap();
        assert_eq!(moved.get_kind().unwrap(), called::MoveResults_::B);
        assert_eq!(moved.get_client().unwrap(), called::Client_::B);
        assert_eq!(moved.get_box().unwrap(), called::Box::B);
    });
    let mut message = Builder::new_default();
    let mut taken: taken::Builder<'_> = message.init_root();
    taken.set_reader(taken::Reader_::B);
    taken.set_option(taken::Option::B);
    taken.set_from(taken::From::B);
    taken.reborrow().init_side().set_side(taken::Side::B);
    taken.reborrow().init_group().init_inner().set_text("inner");
    taken.reborrow().init_of().set_which(taken::Which_::B);
    taken.set_one(taken::Side::B);
    let taken = taken.into_reader();
    assert_eq!(u16::from(taken.get_option().unwrap()), 1);
    assert_eq!(taken.get_nothing(), Err(capnp::NotInSchema(0)));
    let inner: taken::group_::Reader<'_> = taken.get_group().get_inner().unwrap();
    assert_eq!(text(inner.get_text()), "inner");
    assert_eq!(taken_::ID, 0xd8d2_a4c4_ed1d_2d0b);
}

struct Maker;

impl parameters::Server<Text, Text, Text, Text> for Maker {
    fn make(
        &self,
        params: parameters::MakeParams<Text, Text, Text, Text>,
        mut results: parameters::MakeResults<'_, Text, Text, Text, Text>,
    ) -> Result<()> {
        let mut results = results.get();
        results.set_box(params.get()?.get_client()?)?;
        results.set_params(params.get()?.get_server()?)?;
        results.init_inner().set_client("inner")?;
        Ok(())
    }
}

fn parameters_are_called_as_generated_types(setting: Setting) {
    offered(setting, parameters::Client::<Text, Text, Text, Text>::new(Maker), |maker| {
        let made = maker.make(|mut params| {
            params.set_client("client").unwrap();
            params.set_server("server").unwrap();
        });
        let made = made.soon().unwrap();
        let made = made.get().unwrap();
        assert_eq!((text(made.get_box()), text(made.get_params())), ("client".into(), "server".into()));
        assert_eq!(text(made.get_inner().unwrap().get_client()), "inner");
    });
}

struct End;

mod chain {
    pub use crate::generated::chain_base_capnp::base;
    pub use crate::generated::chain_middle_capnp::middle;
}

impl chain::base::Server<Text> for End {
    fn base(
        &self,
        params: chain::base::BaseParams<Text>,
        mut results: chain::base::BaseResults<'_, Text>,
    ) -> Result<()> {
        let mut results = results.get();
        results.set_kind(chain::base::Kind::Fancy);
        results.init_mark().set_value(params.get()?.get_value()?)?;
        Ok(())
    }
}

impl chain::middle::Server<Text> for End {}

impl far::Server for End {
    fn far(&self, params: far::FarParams, mut results: far::FarResults<'_>) -> Result<()> {
        results.set(params.get()?.get_mark()?)
    }
}

fn types_come_from_a_file_that_an_imported_file_imports(setting: Setting) {
    offered(setting, far::Client::new(End), |far| {
        let answered = far.far(|params| params.init_mark().set_value("mark").unwrap()).soon().unwrap();
        assert_eq!(text(answered.get().unwrap().get_value()), "mark");
        let base: chain::base::Client<Text> = far.into();
        let answered = base.base(|mut params| params.set_value("base").unwrap()).soon().unwrap();
        let answered = answered.get().unwrap();
        assert_eq!(answered.get_kind().unwrap(), chain::base::Kind::Fancy);
        assert_eq!(text(answered.get_mark().unwrap().get_value()), "base");
    });
    assert_eq!(text(MARK.get().unwrap().get_value()), "far");
    let anything = ANYTHING.get().unwrap().get_as::<chain::base::mark::Reader<'_, Text>>().unwrap();
    assert_eq!(text(anything.get_value()), "far");
}
