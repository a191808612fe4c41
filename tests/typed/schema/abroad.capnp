# Types of other files and other crates.

@0xb486b9e6d11173bb;

using Inherit = import "inherit.capnp";
using Annotated = import "annotated.capnp";
using Generics = import "generics.capnp";
using Postal = import "/postal.capnp";
using Schema = import "/capnp/schema.capnp";

interface Courier extends(Postal.Office, Inherit.Named) {
  # Extends an interface of another crate, and one of another file.

  carry @0 (parcel :Postal.Parcel, to :Postal.Office) -> (parcel :Postal.Parcel);
  pond @1 () -> (pond :Inherit.Pond, duck :Inherit.Duck);
  pretty @2 Annotated.Ugly -> (ugly :Annotated.Ugly, surly :Annotated.Surly);
  describe @3 (node :Schema.Node) -> (node :Schema.Node, kind :Schema.ElementSize);
  bag @4 Postal.Bag(Text) -> Postal.Bag(Postal.Parcel);
}

interface Depot(T) extends(Postal.Store(T), Generics.Cell(Postal.Parcel)) {
  # A generic interface of another crate, with another brand.
}

interface ParcelDepot extends(Depot(Postal.Parcel)) {
}

struct Van {
  courier @0 :Courier;
  parcels @1 :List(Postal.Parcel);
  stamp @2 :Postal.Stamp = blue;
}
