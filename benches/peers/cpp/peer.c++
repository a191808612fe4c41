// Serves and drives schema/bench.capnp with Cap'n Proto's C++ library, one thread, from version 0.9 on.
//
//   peer server ADDRESS                                 prints `listening PORT`, and serves until it is killed
//   peer client ADDRESS check                           prints one line of JSON, as do the others
//   peer client ADDRESS MODE COUNT INFLIGHT BYTES       makes COUNT calls, with up to INFLIGHT under way
//
// The modes are those of examples/peer, which says what they are, but for those that are about its threads and
// its tables.

#include "bench.capnp.h"

#include <capnp/rpc-twoparty.h>
#include <kj/async-io.h>
#include <kj/debug.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <string>
#include <vector>

namespace {

using Data = kj::ArrayPtr<const kj::byte>;
using Clock = std::chrono::steady_clock;

// ------------------------------------------------------------------------------------------- the server

// Whoever wants a method to be cancelable says so in the schema since version 1.0, and in the method before.
template <typename Context>
void allowCancellation(Context &context) {
  if constexpr (requires { context.allowCancellation(); }) context.allowCancellation();
}

class Object final : public Bench::Server {
public:
  kj::Promise<void> echo(EchoContext call) override {
    call.getResults().setData(call.getParams().getData());
    return kj::READY_NOW;
  }

  kj::Promise<void> next(NextContext call) override {
    call.getResults().setNext(kj::heap<Object>());
    return kj::READY_NOW;
  }

  kj::Promise<void> callback(CallbackContext call) override {
    auto params = call.getParams();
    auto request = params.getTarget().echoRequest();
    request.setData(params.getData());
    return request.send().then([call](auto &&echoed) mutable { call.getResults().setData(echoed.getData()); });
  }

  kj::Promise<void> push(PushContext call) override {
    bytes += call.getParams().getData().size();
    return kj::READY_NOW;
  }

  kj::Promise<void> pushed(PushedContext call) override {
    call.getResults().setBytes(bytes);
    return kj::READY_NOW;
  }

  kj::Promise<void> hang(HangContext call) override {
    allowCancellation(call);
    return kj::NEVER_DONE;
  }

  kj::Promise<void> fail(FailContext call) override {
    return KJ_EXCEPTION(FAILED, kj::str(call.getParams().getReason()));
  }

  kj::Promise<void> identity(IdentityContext call) override {
    call.getResults().setCap(call.getParams().getCap());
    return kj::READY_NOW;
  }

  kj::Promise<void> sequence(SequenceContext call) override {
    auto expected = call.getParams().getExpected();
    KJ_REQUIRE(expected == calls, "out of order");
    ++calls;
    return kj::READY_NOW;
  }

private:
  uint64_t bytes = 0;
  uint32_t calls = 0;
};

void serve(kj::AsyncIoContext &io, kj::NetworkAddress &address) {
  auto listener = address.listen();
  printf("listening %u\n", listener->getPort());
  fflush(stdout);
  capnp::TwoPartyServer server(kj::heap<Object>());
  server.listen(*listener).wait(io.waitScope);
}

// ------------------------------------------------------------------------------------------ single calls

kj::Promise<capnp::Response<Bench::EchoResults>> echo(Bench::Client &object, Data data) {
  auto request = object.echoRequest();
  request.setData(data);
  return request.send();
}

kj::Promise<capnp::Response<Bench::CallbackResults>> callback(Bench::Client &object, Bench::Client target, Data data) {
  auto request = object.callbackRequest();
  request.setTarget(kj::mv(target));
  request.setData(data);
  return request.send();
}

kj::Promise<void> push(Bench::Client &object, Data data) {
  auto request = object.pushRequest();
  request.setData(data);
  return request.send();
}

uint64_t pushed(Bench::Client &object, kj::WaitScope &wait) {
  return object.pushedRequest().send().wait(wait).getBytes();
}

kj::Promise<void> sequence(Bench::Client &object, uint32_t expected) {
  auto request = object.sequenceRequest();
  request.setExpected(expected);
  return request.send().ignoreResult();
}

// An object of the server's that has not come yet.
Bench::Client next(Bench::Client &object) { return object.nextRequest().send().getNext(); }

kj::Array<kj::byte> bytes(size_t size) {
  auto array = kj::heapArray<kj::byte>(size);
  memset(array.begin(), 7, size);
  return array;
}

// ----------------------------------------------------------------------------------------- what must hold

// What every server has to do, whatever it stands on. The first failure is thrown.
class Check {
public:
  Check(Bench::Client bench, kj::WaitScope &wait) : bench(kj::mv(bench)), wait(wait) {}

  int all() {
    echoes();
    errors();
    cancellation();
    objects();
    callbacks();
    for (int round = 0; round < 20; ++round) embargo();
    promise();
    return passed;
  }

private:
  void holds(bool held, const char *what) {
    KJ_REQUIRE(held, what);
    ++passed;
  }

  // Fails unless the promise does.
  template <typename T>
  kj::Exception failure(kj::Promise<T> promise) {
    try {
      promise.wait(wait);
    } catch (const kj::Exception &e) {
      return kj::Exception(e);
    }
    KJ_FAIL_REQUIRE("no exception");
  }

  void echoes() {
    for (size_t size : {0, 1, 7, 8, 1000, 65536, 1000000}) {
      auto sent = bytes(size);
      for (size_t i = 0; i < size; ++i) sent[i] = static_cast<kj::byte>(i * 31);
      holds(echo(bench, sent).wait(wait).getData() == sent.asPtr(), "echo");
    }
  }

  void errors() {
    auto request = bench.failRequest();
    request.setReason("the reason");
    auto failed = failure(request.send().ignoreResult());
    holds(failed.getType() == kj::Exception::Type::FAILED, "fail: kind");
    holds(strstr(failed.getDescription().cStr(), "the reason") != nullptr, "fail: reason");
    auto unserved = failure(bench.castAs<Unserved>().nothingRequest().send().ignoreResult());
    holds(unserved.getType() == kj::Exception::Type::UNIMPLEMENTED, "unimplemented: kind");
  }

  void cancellation() {
    {
      auto hanging = bench.hangRequest().send();
      echo(bench, {}).wait(wait);
      holds(!hanging.poll(wait), "hang returned");
    }
    echo(bench, {}).wait(wait);
    holds(true, "alive after a canceled call");
  }

  void objects() {
    auto a = next(bench), b = next(bench);
    push(a, bytes(10)).wait(wait);
    holds(pushed(a, wait) == 10, "push counted");
    holds(pushed(b, wait) == 0, "objects are separate");
  }

  void callbacks() {
    holds(callback(bench, kj::heap<Object>(), bytes(5)).wait(wait).getData().size() == 5, "callback to us");
    holds(callback(bench, next(bench), bytes(6)).wait(wait).getData().size() == 6,
          "callback to a promised object of the server");
  }

  // Calls ahead on our own object by way of the server, and more once it is known that it is ours.
  void embargo() {
    auto request = bench.identityRequest();
    request.setCap(kj::heap<Object>());
    auto returned = request.send();
    Bench::Client looped = returned.getCap();
    std::vector<kj::Promise<void>> calls;
    while (calls.size() < 10) calls.push_back(sequence(looped, calls.size()));
    returned.wait(wait);
    while (calls.size() < 20) calls.push_back(sequence(looped, calls.size()));
    for (auto &call : calls) call.wait(wait);
    holds(true, "order kept over an embargo");
  }

  void promise() {
    auto object = next(bench);
    std::vector<kj::Promise<void>> calls;
    while (calls.size() < 500) calls.push_back(sequence(object, calls.size()));
    for (auto &call : calls) call.wait(wait);
    holds(true, "order kept on a promise");
  }

  Bench::Client bench;
  kj::WaitScope &wait;
  int passed = 0;
};

// --------------------------------------------------------------------------------------- what is measured

struct Connection {
  kj::Own<kj::AsyncIoStream> stream;
  capnp::TwoPartyClient rpc;
  Bench::Client bench;

  explicit Connection(kj::Own<kj::AsyncIoStream> connected)
      : stream(kj::mv(connected)), rpc(*stream), bench(rpc.bootstrap().castAs<Bench>()) {}
};

class Work {
public:
  Work(kj::AsyncIoContext &io, kj::NetworkAddress &address, char **numbers)
      : wait(io.waitScope), address(address), count(number(numbers[0])),
        inflight(std::max<size_t>(1, number(numbers[1]))), payload(bytes(number(numbers[2]))) {}

  void run(const std::string &mode) {
    Connection connection(address.connect().wait(wait));
    auto &bench = connection.bench;
    if (mode == "latency" || mode == "throughput") {
      window([&] { return echo(bench, payload).ignoreResult(); });
    } else if (mode == "pipeline") {
      window([&] {
        auto last = bench;
        for (int i = 0; i < 8; ++i) last = next(last);
        return echo(last, payload).ignoreResult();
      });
    } else if (mode == "callback") {
      window([&] { return callback(bench, kj::heap<Object>(), payload).ignoreResult(); });
    } else if (mode == "churn") {
      window([&] { return bench.nextRequest().send().ignoreResult(); });
    } else if (mode == "stream") {
      streaming(bench);
    } else if (mode == "conns") {
      connections(bench);
    } else if (mode == "callers" || mode == "idle" || mode == "outstanding" || mode == "exports") {
      KJ_FAIL_REQUIRE("this mode is about threads and tables: only the peer of capnp-threads has it");
    } else {
      KJ_FAIL_REQUIRE("there is no such mode");
    }
    report(mode);
  }

private:
  static size_t number(const char *text) {
    char *end;
    auto value = strtoul(text, &end, 10);
    KJ_REQUIRE(*text != 0 && *end == 0, "a number was expected", text);
    return value;
  }

  void begin() { start = Clock::now(); }
  void end() { seconds = std::chrono::duration<double>(Clock::now() - start).count(); }
  static double microsSince(Clock::time_point then) {
    return std::chrono::duration<double, std::micro>(Clock::now() - then).count();
  }

  // Some calls before those that are measured.
  template <typename Issue>
  void warmUp(Issue issue) {
    for (size_t i = std::min<size_t>(count / 10 + 1, 2000); i > 0; --i) issue().wait(wait);
  }

  // Calls with so many in flight, each waited for in turn.
  template <typename Issue>
  void window(Issue issue) {
    warmUp(issue);
    std::deque<std::pair<Clock::time_point, kj::Promise<void>>> calls;
    auto waitForFirst = [&] {
      auto [since, call] = kj::mv(calls.front());
      calls.pop_front();
      call.wait(wait);
      each.push_back(microsSince(since));
    };
    each.reserve(count);
    begin();
    for (size_t i = 0; i < count; ++i) {
      if (calls.size() == inflight) waitForFirst();
      auto now = Clock::now();
      calls.emplace_back(now, issue());
    }
    while (!calls.empty()) waitForFirst();
    end();
  }

  void streaming(Bench::Client &bench) {
    warmUp([&] { return echo(bench, payload).ignoreResult(); });
    begin();
    for (size_t i = 0; i < count; ++i) push(bench, payload).wait(wait);
    auto arrived = pushed(bench, wait);
    end();
    KJ_REQUIRE(arrived == count * payload.size(), "not all bytes have arrived", arrived);
  }

  // So many connections, each with one call at a time.
  void connections(Bench::Client &bench) {
    warmUp([&] { return echo(bench, payload).ignoreResult(); });
    std::vector<kj::Own<Connection>> all;
    while (all.size() < inflight) {
      all.push_back(kj::heap<Connection>(address.connect().wait(wait)));
      pushed(all.back()->bench, wait);
    }
    left = count;
    auto loops = kj::heapArrayBuilder<kj::Promise<void>>(all.size());
    begin();
    for (auto &connection : all) loops.add(callWhileLeft(connection->bench));
    kj::joinPromises(loops.finish()).wait(wait);
    end();
  }

  kj::Promise<void> callWhileLeft(Bench::Client &bench) {
    if (left == 0) return kj::READY_NOW;
    --left;
    return echo(bench, payload).ignoreResult().then([this, &bench] { return callWhileLeft(bench); });
  }

  void report(const std::string &mode) {
    std::sort(each.begin(), each.end());
    auto at = [&](size_t percent) { return each.empty() ? 0 : each[each.size() * percent / 100]; };
    printf("{\"peer\":\"c++\",\"mode\":\"%s\",\"count\":%zu,\"inflight\":%zu,\"bytes\":%zu,\"seconds\":%.3f,"
           "\"per_second\":%.0f,\"mb_per_second\":%.1f,\"p50_us\":%.1f,\"p99_us\":%.1f}\n",
           mode.c_str(), count, inflight, payload.size(), seconds, count / seconds,
           count * payload.size() / seconds / 1e6, at(50), at(99));
  }

  kj::WaitScope &wait;
  kj::NetworkAddress &address;
  size_t count, inflight;
  kj::Array<kj::byte> payload;
  // How many calls `connections` still has to make.
  size_t left = 0;
  Clock::time_point start;
  double seconds = 0;
  // How many microseconds each call took, where calls are timed.
  std::vector<double> each;
};

void run(int argc, char **argv) {
  std::string role = argc > 2 ? argv[1] : "", mode = argc > 3 ? argv[3] : "";
  bool server = role == "server" && argc == 3;
  bool check = role == "client" && mode == "check";
  bool work = role == "client" && argc == 7;
  KJ_REQUIRE(server || check || work, "usage: peer server ADDRESS | peer client ADDRESS MODE [COUNT INFLIGHT BYTES]");
  auto io = kj::setupAsyncIo();
  auto address = io.provider->getNetwork().parseAddress(argv[2]).wait(io.waitScope);
  if (server) {
    serve(io, *address);
  } else if (check) {
    Connection connection(address->connect().wait(io.waitScope));
    printf("{\"peer\":\"c++\",\"mode\":\"check\",\"passed\":%d}\n", Check(connection.bench, io.waitScope).all());
  } else {
    Work(io, *address, argv + 4).run(mode);
  }
}

}  // namespace

int main(int argc, char **argv) {
  try {
    run(argc, argv);
    return 0;
  } catch (const kj::Exception &e) {
    fprintf(stderr, "%s\n", e.getDescription().cStr());
    return 1;
  }
}
