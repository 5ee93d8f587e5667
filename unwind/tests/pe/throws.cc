// Exceptions, landing pads, and objects to destroy.
#include <string>
#include <vector>
#include <stdexcept>

struct Noisy {
  std::string name;
  explicit Noisy(int n) : name(n, 'x') {}
  ~Noisy() { name.clear(); }
};

__attribute__((noinline)) int deeper(int n) {
  Noisy here(n);
  if (n > 40) throw std::runtime_error(here.name);
  try {
    return deeper(n * 2) + static_cast<int>(here.name.size());
  } catch (const std::logic_error &) {
    return 0;
  }
}

extern "C" __declspec(dllexport) int entered(int n) {
  std::vector<Noisy> all;
  for (int i = 0; i < n; i++) all.emplace_back(i);
  try {
    return deeper(n);
  } catch (const std::exception &error) {
    return static_cast<int>(all.size() + std::string(error.what()).size());
  }
}

int main(int argc, char **) { return entered(argc) == 0; }
