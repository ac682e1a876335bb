// A signal (SIGINT, SIGTERM, SIGUSR1, SIGHUP) only raises a flag; long-running loops look at it between steps, save
// and leave with Exit::interrupted. A second SIGINT kills the program at once.
#pragma once

namespace longlora {

void install_signal_handlers();
[[nodiscard]] bool stop_requested();
[[nodiscard]] int stop_signal();  // the signal's number, 0 when none came
void clear_stop();                // the signal was for what ran then, which has ended; the program goes on

// For work that takes hours: a reader of its messages that ends (`| tee log`, `| head`) does not end it.
void ignore_closed_pipes();

}  // namespace longlora
