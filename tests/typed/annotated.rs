//! Names, modules and types that annotations of the schema ask for.

use capnp_threads::{Capability, Result};

use crate::generated::elsewhere::annotated_capnp::{friendly, pretty};
use crate::support::{offered, text, Setting, Soon};

in_each_setting!(renamed_things_are_called, optional_fields_are_options, an_enum_has_another_name);

struct Host;

impl friendly::Server for Host {
    fn greet(&self, params: friendly::GreetParams, mut results: friendly::GreetResults<'_>) -> Result<()> {
        let params = params.get()?;
        let mut results = results.get();
        results.set_kind(match params.get_good()? {
            Some(_) => "known",
            None => "unknown",
        });
        results.set_ugly(params)?;
        Ok(())
    }
}

fn renamed_things_are_called(setting: Setting) {
    offered(setting, friendly::Client::new(Host), |host| {
        let guest = friendly::Client::new(Host);
        let greeted = host.greet(|mut guests| {
            guests.set_good("name");
            guests.set_plain(guest.clone());
            let mut better = guests.init_better();
            better.set_text("group");
            better.set_someone(guest.clone());
        });
        let ahead = greeted.pipeline.get().get_ugly();
        let inner = ahead.get_better().get_someone().greet(|_| ());
        assert_eq!(text(inner.soon().unwrap().get().unwrap().get_kind()), "unknown");
        assert_eq!(ahead.get_plain().resolve().unwrap(), guest);
        let greeted = greeted.soon().unwrap();
        let greeted = greeted.get().unwrap();
        assert_eq!(text(greeted.get_kind()), "known");
        let better = greeted.get_ugly().unwrap().get_better();
        assert_eq!(better.get_text().unwrap().unwrap(), "group");
        assert_eq!(better.get_someone().unwrap().resolve().unwrap(), guest);
    });
}

fn optional_fields_are_options(setting: Setting) {
    offered(setting, friendly::Client::new(Host), |host| {
        let greeted = host.greet(|mut guest| {
            guest.set_good("");
            guest.reborrow().init_list(0);
            guest.init_next().init_next();
        });
        let greeted = greeted.soon().unwrap();
        let ugly = greeted.get().unwrap().get_ugly().unwrap();
        assert_eq!(ugly.get_good().unwrap().unwrap(), "");
        assert_eq!(ugly.get_list().unwrap().unwrap().len(), 0);
        assert!(ugly.get_better().get_text().unwrap().is_none());
        let last = ugly.get_next().unwrap().unwrap().get_next().unwrap().unwrap();
        assert!(last.get_next().unwrap().is_none());
        assert!(last.get_good().unwrap().is_none());
    });
}

fn an_enum_has_another_name(setting: Setting) {
    offered(setting, friendly::Client::new(Host), |host| {
        for bright in [pretty::Bright::Light, pretty::Bright::Dim] {
            let greeted = host.greet(|mut guest| guest.set_sort(bright)).soon().unwrap();
            assert_eq!(greeted.get().unwrap().get_ugly().unwrap().get_sort().unwrap(), bright);
        }
    });
}
