# What methods take and return, and what stands beside them in an interface.

@0xbb3b6ec1f5f17ef8;

struct Query {
  words @0 :List(Text);
  limit @1 :UInt16 = 7;
  lenient @2 :Bool = true;
  hint @3 :Text = "none";
}

struct Lines {
  lines @0 :List(Text);
  library @1 :Library;
}

interface Library {
  find @0 Query -> Lines;
  count @1 Query -> (count :UInt32);
  again @2 (times :UInt8) -> Lines;
  locate @3 (mark :Mark, order :Order) -> (mark :Mark, order :Order);
  defaults @4 (
    text :Text = "left",
    number :UInt32 = 17,
    flag :Bool = true,
    query :Query = (limit = 3, hint = "deep"),
    bytes :List(UInt8) = [1, 2, 3],
    order :Order = falling,
    library :Library = null,
    ratio :Float64 = 2.5,
    data :Data = 0x"00ff"
  ) -> (
    text :Text = "right",
    number :Int32 = -9,
    order :Order = falling,
    query :Query = (words = ["a", "b"])
  );
  nothing @5 ();

  enum Order {
    rising @0;
    falling @1;
    asFound @2;
  }

  struct Mark {
    row @0 :UInt16;
    order @1 :Order;
    shelf :group {
      number @2 :UInt32;
      owner @3 :Library;
    }
  }

  const capacity :UInt32 = 4096;
  const motto :Text = "read twice";
  const widest :Query = (words = ["all"], limit = 65535);
  const rows :List(UInt16) = [1, 1, 2, 3];
  const best :Order = asFound;
}

struct Fields {
  type @0 :UInt8;
  self @1 :Text;
  move @2 :List(Fields);
  use @3 :Fields;
  match :group {
    fn @4 :UInt8;
    loop @5 :Words;
  }
  async :union {
    await @6 :Void;
    dyn @7 :Text;
    try @8 :Words;
    self @9 :Text;
  }
}

interface Words {
  # Names that mean something to the Rust compiler.

  type @0 (type :Text) -> (type :Text);
  self @1 (self :Text) -> (self :Text);
  move @2 (move :Words) -> (move :Words);
  use @3 Fields -> Fields;
  match @4 (match :Bool) -> (match :Match);
  fn @5 () -> (fn :Words);
  loop @6 (loop :UInt64) -> stream;
  async @7 (async :Text) -> (async :Text);
  await @8 () -> ();
  dyn @9 (dyn :Words) -> (dyn :Words);
  try @10 (try :UInt8) -> (try :UInt8);
  struct @11 () -> (struct :Struct);
  super @12 () -> ();
  crate @13 () -> ();
  where @14 () -> (loop :UInt64);

  enum Match {
    if @0;
    else @1;
    loop @2;
    self @3;
  }

  struct Struct {
    enum @0 :Match = self;
  }

  interface Yield {
    return @0 () -> (true :Bool);
  }
}

interface Collisions {
  # Names that clients have a use for already.

  new @0 (text :Text) -> (text :Text);
  null @1 (text :Text) -> (text :Text);
  clone @2 (text :Text) -> (text :Text);
  resolve @3 (text :Text) -> (text :Text);
  request @4 (text :Text) -> (text :Text);
  from @5 (text :Text) -> (text :Text);
  into @6 () -> (text :Text);
  foo @7 (text :Text) -> (text :Text);
  fooRequest @8 (text :Text) -> (text :Text);
  fooRequestRequest @9 (text :Text) -> (text :Text);
  broken @10 () -> (text :Text);
  promise @11 () -> (text :Text);
  isNull @12 () -> (text :Text);
  castTo @13 () -> (text :Text);
  asRef @14 () -> (text :Text);
  eq @15 () -> (text :Text);
  dispatch @16 () -> (text :Text);
  drop @17 () -> (text :Text);
  localServer @18 () -> (text :Text);
  withPool @19 () -> (text :Text);
  params @20 (results :Text, call :Text, server :Text) -> (params :Text);
  fill @21 (fill :Text, stream :Text) -> stream;
  client @22 (client :Client) -> (client :Client);

  struct Client {
    client @0 :Collisions;
    hook @1 :Collisions;
  }
}

interface Sink {
  # Adds numbers up.

  write @0 (number :UInt64, pad :Data) -> stream;
  tick @1 () -> stream;
  pass @2 Query -> stream;
  seen @3 () -> (numbers :List(UInt64));
}
