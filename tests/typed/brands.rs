//! Generic interfaces that extend generic ones, with other brands.

use std::collections::BTreeMap;
use std::sync::Mutex;

use capnp::data::Owned as Data;
use capnp::text::Owned as Text;
use capnp_threads::{Capability, Error, Result};

use crate::generated::generics_capnp::*;
use crate::support::{offered, text, Setting, Soon};

in_each_setting!(
    a_brand_goes_through_two_interfaces,
    parameters_change_their_places,
    a_nested_interface_and_a_nested_struct_of_a_generic_one,
    upcasts_have_the_brands_of_the_bases,
);

/// A shelf of data under texts, and a cell of text.
#[derive(Default)]
struct Shop {
    shelf: Mutex<BTreeMap<String, Vec<u8>>>,
    cell: Mutex<String>,
}

impl cell::Server<Text> for Shop {
    fn get(&self, _: cell::GetParams<Text>, mut results: cell::GetResults<'_, Text>) -> Result<()> {
        Ok(results.get().set_value(&**self.cell.lock().unwrap())?)
    }

    fn set(&self, params: cell::SetParams<Text>, _: cell::SetResults<'_, Text>) -> Result<()> {
        *self.cell.lock().unwrap() = params.get()?.get_value()?.to_string()?;
        Ok(())
    }
}

impl named_cell::Server<Text> for Shop {
    fn name(
        &self,
        _: named_cell::NameParams<Text>,
        mut results: named_cell::NameResults<'_, Text>,
    ) -> Result<()> {
        results.get().set_name("shop");
        Ok(())
    }
}

impl text_cell::Server for Shop {
    fn length(&self, _: text_cell::LengthParams, mut results: text_cell::LengthResults<'_>) -> Result<()> {
        results.get().set_length(self.cell.lock().unwrap().len() as u32);
        Ok(())
    }
}

impl shelf::Server<Text, Data> for Shop {
    fn put(&self, params: shelf::PutParams<Text, Data>, _: shelf::PutResults<'_, Text, Data>) -> Result<()> {
        let params = params.get()?;
        let (key, value) = (params.get_key()?.to_string()?, params.get_value()?.to_vec());
        self.shelf.lock().unwrap().insert(key, value);
        Ok(())
    }

    fn take(
        &self,
        params: shelf::TakeParams<Text, Data>,
        mut results: shelf::TakeResults<'_, Text, Data>,
    ) -> Result<()> {
        let value = self.shelf.lock().unwrap().remove(params.get()?.get_key()?.to_str()?);
        Ok(results.get().set_value(&*value.ok_or_else(|| Error::failed("not on the shelf"))?)?)
    }

    fn entries(
        &self,
        _: shelf::EntriesParams<Text, Data>,
        mut results: shelf::EntriesResults<'_, Text, Data>,
    ) -> Result<()> {
        let shelf = self.shelf.lock().unwrap();
        let mut entries = results.get().init_entries(shelf.len() as u32);
        for (i, (key, value)) in shelf.iter().enumerate() {
            let mut entry = entries.reborrow().get(i as u32);
            entry.set_key(&**key)?;
            entry.set_value(&**value)?;
        }
        Ok(())
    }

    fn cursor(
        &self,
        _: shelf::CursorParams<Text, Data>,
        mut results: shelf::CursorResults<'_, Text, Data>,
    ) -> Result<()> {
        let left = self.shelf.lock().unwrap().clone().into_iter().collect();
        results.get().set_cursor(Capability::new(Left(Mutex::new(left))));
        Ok(())
    }
}

struct Left(Mutex<Vec<(String, Vec<u8>)>>);

impl shelf::cursor::Server<Text, Data> for Left {
    fn next(
        &self,
        _: shelf::cursor::NextParams<Text, Data>,
        mut results: shelf::cursor::NextResults<'_, Text, Data>,
    ) -> Result<()> {
        let next = self.0.lock().unwrap().pop();
        let (key, value) = next.ok_or_else(|| Error::failed("the end"))?;
        let mut entry = results.get().init_entry();
        entry.set_key(&*key)?;
        entry.set_value(&*value)?;
        Ok(())
    }
}

impl turned::Server<Data, Text> for Shop {
    fn turned(
        &self,
        params: turned::TurnedParams<Data, Text>,
        mut results: turned::TurnedResults<'_, Data, Text>,
    ) -> Result<()> {
        let (params, mut results) = (params.get()?, results.get());
        results.set_first(params.get_b()?)?;
        results.set_second(params.get_a()?)?;
        Ok(())
    }
}

impl catalogue::Server for Shop {
    fn size(&self, _: catalogue::SizeParams, mut results: catalogue::SizeResults<'_>) -> Result<()> {
        results.get().set_size(self.shelf.lock().unwrap().len() as u32);
        Ok(())
    }
}

fn shop() -> catalogue::Client {
    catalogue::Client::new(Shop::default())
}

fn put(shelf: &shelf::Client<Text, Data>, key: &str, value: &[u8]) {
    let put = shelf.put(|mut params| {
        params.set_key(key)?;
        params.set_value(value)
    });
    put.soon().unwrap();
}

fn a_brand_goes_through_two_interfaces(setting: Setting) {
    offered(setting, text_cell::Client::new(Shop::default()), |object| {
        let cell = cell::Client::<Text>::from(object.clone());
        cell.set(|mut params| params.set_value("twelve chars")).soon().unwrap();
        assert_eq!(text(cell.get().soon().unwrap().get().unwrap().get_value()), "twelve chars");
        assert_eq!(object.length().soon().unwrap().get().unwrap().get_length(), 12);
        let named = named_cell::Client::<Text>::from(object);
        assert_eq!(text(named.name().soon().unwrap().get().unwrap().get_name()), "shop");
        assert_eq!(cell::Client::<Text>::from(named), cell);
    });
}

fn parameters_change_their_places(setting: Setting) {
    offered(setting, shop(), |shop| {
        let turned = turned::Client::<Data, Text>::from(shop.clone());
        let pair = turned.turned(|mut params| {
            params.set_a(&[1][..])?;
            params.set_b("b")
        });
        let pair = pair.soon().unwrap();
        let pair = pair.get().unwrap();
        assert_eq!(text(pair.get_first()), "b");
        assert_eq!(pair.get_second().unwrap(), [1]);
        let shelf = shelf::Client::<Text, Data>::from(turned);
        put(&shelf, "key", &[2, 3]);
        assert_eq!(shop.size().soon().unwrap().get().unwrap().get_size(), 1);
        let taken = shelf.take(|mut params| params.set_key("key")).soon().unwrap();
        assert_eq!(taken.get().unwrap().get_value().unwrap(), [2, 3]);
        let why = shelf.take(|mut params| params.set_key("key")).soon().unwrap_err();
        assert!(why.to_string().contains("not on the shelf"), "{why}");
    });
}

fn a_nested_interface_and_a_nested_struct_of_a_generic_one(setting: Setting) {
    offered(setting, shop(), |shop| {
        let shelf = shelf::Client::<Text, Data>::from(shop);
        put(&shelf, "a", &[1]);
        put(&shelf, "b", &[2]);
        let entries = shelf.entries().soon().unwrap();
        let entries = entries.get().unwrap().get_entries().unwrap();
        let found: Vec<_> = entries
            .iter()
            .map(|entry| (text(entry.get_key()), entry.get_value().unwrap().to_vec()))
            .collect();
        assert_eq!(found, [("a".to_string(), vec![1]), ("b".to_string(), vec![2])]);
        let cursor: shelf::cursor::Client<Text, Data> = shelf.cursor().pipeline.get().get_cursor();
        for (key, value) in [("b", 2), ("a", 1)] {
            let next = cursor.next().soon().unwrap();
            let entry = next.get().unwrap().get_entry().unwrap();
            assert_eq!((text(entry.get_key()), entry.get_value().unwrap()), (key.into(), &[value][..]));
        }
        assert!(cursor.next().soon().unwrap_err().to_string().contains("the end"));
    });
}

fn upcasts_have_the_brands_of_the_bases(setting: Setting) {
    offered(setting, shop(), |shop| {
        let cell = cell::Client::<Text>::from(shop.clone());
        assert_eq!(cell, cell::Client::<Text>::from(text_cell::Client::from(shop.clone())));
        assert_eq!(
            named_cell::Client::<Text>::from(shop.clone()),
            named_cell::Client::<Text>::from(shop.clone())
        );
        let shelf = shelf::Client::<Text, Data>::from(shop.clone());
        assert_eq!(
            shelf,
            shelf::Client::<Text, Data>::from(turned::Client::<Data, Text>::from(shop.clone()))
        );
        assert_eq!(AsRef::<capnp_threads::Client>::as_ref(&shelf), cell.as_ref());
    });
}
