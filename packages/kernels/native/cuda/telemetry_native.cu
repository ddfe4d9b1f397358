// See telemetry.h. NVML's functions by their names; the device by its place on the bus, since NVML also counts those that the
// process may not see.
#include <cuda_runtime.h>
#include <dlfcn.h>

#include <cmath>
#include <cstdint>
#include <type_traits>

#include "telemetry.h"

namespace variator::cuda {
namespace {

struct Memory {
  unsigned long long total, free, used;
};

struct Nvml {
  using Device = void*;
  int (*init)() = nullptr;
  int (*deviceByBusId)(const char*, Device*) = nullptr;
  int (*clock)(Device, int, unsigned*) = nullptr;
  int (*power)(Device, unsigned*) = nullptr;
  int (*energy)(Device, unsigned long long*) = nullptr;
  int (*temperature)(Device, int, unsigned*) = nullptr;
  int (*memory)(Device, Memory*) = nullptr;
  Device device = nullptr;

  Nvml() {
    void* library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) return;
    const auto find = [&](auto& function, const char* name) { function = reinterpret_cast<std::decay_t<decltype(function)>>(dlsym(library, name)); };
    find(init, "nvmlInit_v2");
    find(deviceByBusId, "nvmlDeviceGetHandleByPciBusId_v2");
    find(clock, "nvmlDeviceGetClockInfo");
    find(power, "nvmlDeviceGetPowerUsage");
    find(energy, "nvmlDeviceGetTotalEnergyConsumption");
    find(temperature, "nvmlDeviceGetTemperature");
    find(memory, "nvmlDeviceGetMemoryInfo");
    char busId[32];
    if (init == nullptr || deviceByBusId == nullptr || init() != 0) return;
    if (cudaDeviceGetPCIBusId(busId, sizeof(busId), 0) != cudaSuccess || deviceByBusId(busId, &device) != 0) device = nullptr;
  }
};

constexpr int smClock = 1, memoryClock = 2, coreTemperature = 0;

}  // namespace

VariatorCudaTelemetry readTelemetry() {
  static const Nvml nvml;
  VariatorCudaTelemetry telemetry{NAN, NAN, NAN, NAN, NAN, -1};
  if (nvml.device == nullptr) return telemetry;
  unsigned value = 0;
  unsigned long long millijoules = 0;
  Memory memory{};
  if (nvml.clock != nullptr && nvml.clock(nvml.device, smClock, &value) == 0) telemetry.smClockMhz = value;
  if (nvml.clock != nullptr && nvml.clock(nvml.device, memoryClock, &value) == 0) telemetry.memoryClockMhz = value;
  if (nvml.power != nullptr && nvml.power(nvml.device, &value) == 0) telemetry.powerWatts = value / 1e3;
  if (nvml.energy != nullptr && nvml.energy(nvml.device, &millijoules) == 0) telemetry.energyJoules = static_cast<double>(millijoules) / 1e3;
  if (nvml.temperature != nullptr && nvml.temperature(nvml.device, coreTemperature, &value) == 0) telemetry.temperatureCelsius = value;
  if (nvml.memory != nullptr && nvml.memory(nvml.device, &memory) == 0) telemetry.memoryUsedBytes = static_cast<int64_t>(memory.used);
  return telemetry;
}

}  // namespace variator::cuda
