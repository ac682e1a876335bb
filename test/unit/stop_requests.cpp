#include <csignal>

#include <catch2/catch.hpp>

#include "core/base/signal.h"

using namespace longlora;
using Reaction = StopRequests::Reaction;

TEST_CASE("only the first signal stops, later ones are noted", "[signal]") {
  StopRequests requests;
  CHECK(requests.first() == 0);
  CHECK(requests.on(SIGUSR1, 10) == Reaction::stop);
  CHECK(requests.on(SIGTERM, 20) == Reaction::note);
  CHECK(requests.on(SIGUSR1, 99'000) == Reaction::note);
  CHECK(requests.on(SIGHUP, 99'000) == Reaction::note);
  CHECK(requests.first() == SIGUSR1);
}

TEST_CASE("a second Ctrl-C ends the program once a second has passed since the first", "[signal]") {
  StopRequests requests;
  CHECK(requests.on(SIGINT, 5000) == Reaction::stop);
  CHECK(requests.on(SIGINT, 5000) == Reaction::ignore);
  CHECK(requests.on(SIGINT, 5999) == Reaction::ignore);
  CHECK(requests.on(SIGTERM, 8000) == Reaction::note);
  CHECK(requests.on(SIGINT, 6000) == Reaction::quit);
}

TEST_CASE("after another signal it takes two Ctrl-Cs as well", "[signal]") {
  StopRequests requests;
  CHECK(requests.on(SIGTERM, 0) == Reaction::stop);
  CHECK(requests.on(SIGINT, 5000) == Reaction::note);
  CHECK(requests.on(SIGINT, 5100) == Reaction::ignore);
  CHECK(requests.on(SIGINT, 6000) == Reaction::quit);
  CHECK(requests.first() == SIGTERM);
}

TEST_CASE("a signal that was for something that has ended counts no more", "[signal]") {
  StopRequests requests;
  CHECK(requests.on(SIGINT, 5000) == Reaction::stop);
  requests.clear();
  CHECK(requests.first() == 0);
  CHECK(requests.on(SIGINT, 9000) == Reaction::stop);
}
