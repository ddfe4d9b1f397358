// The machine's instruction-set features, by CPUID (with the system's consent to save the registers).
#pragma once
#include <string>
#include <vector>

namespace variator {

// Named as MachineProbe.features names them; empty where nothing is known.
std::vector<std::string> cpuFeatures();
bool hasFeatures(const std::vector<const char*>& needed);
// From now on the process runs as if the machine had nothing beyond `isa`: generic, avx2, avx512, avx512vnni, or all.
// Throws NativeFault for another name.
void limitIsa(const std::string& isa);

}  // namespace variator
