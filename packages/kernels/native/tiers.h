// The machine's instruction-set features, by CPUID (with the system's consent to save the registers).
#pragma once
#include <initializer_list>
#include <string>
#include <vector>

namespace variator {

// Named as MachineProbe.features names them; empty where nothing is known.
std::vector<std::string> cpuFeatures();
bool hasFeatures(std::initializer_list<const char*> needed);

}  // namespace variator
