#include "cubin.h"

#include <elf.h>

#include <cstdint>
#include <algorithm>
#include <cstring>

namespace fake {

constexpr int CUDA = 190;
// Of every block's shared memory, from compute capability 9.0 on; it is not counted as the kernel's.
constexpr size_t SYSTEM = 1024;
// Records of .nv.info: registers and parameters of kernels, and bounds of their launches.
constexpr int REGISTERS = 0x2f, PARAMETER = 0x17, THREADS = 0x05, WITH_SIZE = 4;

static bool begins(const std::string& text, const char* with) { return text.rfind(with, 0) == 0; }

// f(kind, words, number of words) of each record.
template <typename F> static void records(const char* at, size_t size, F f) {
    for (const char* end = at + size; at + 4 <= end;) {
        uint16_t value;
        memcpy(&value, at + 2, 2);
        if (at[0] != WITH_SIZE) {
            at += 4;
            continue;
        }
        std::vector<uint32_t> words(value / 4);
        memcpy(words.data(), at + 4, value / 4 * 4);
        f(at[1], words);
        at += 4 + value;
    }
}

std::map<std::string, Kernel> kernels(const void* image, int& architecture) {
    std::map<std::string, Kernel> found;
    const char* base = static_cast<const char*>(image);
    auto header = static_cast<const Elf64_Ehdr*>(image);
    if (memcmp(base, ELFMAG, SELFMAG) || header->e_machine != CUDA) return found;
    architecture = header->e_flags & 0xff;
    auto sections = reinterpret_cast<const Elf64_Shdr*>(base + header->e_shoff);
    const char* names = base + sections[header->e_shstrndx].sh_offset;
    std::map<uint32_t, int> registers;
    for (int i = 0; i < header->e_shnum; i++)
        if (!strcmp(names + sections[i].sh_name, ".nv.info"))
            records(base + sections[i].sh_offset, sections[i].sh_size, [&](int kind, const auto& words) {
                if (kind == REGISTERS) registers[words[0]] = words[1];
            });
    for (int i = 0; i < header->e_shnum; i++) {
        const Elf64_Shdr& section = sections[i];
        std::string name = names + section.sh_name;
        if (begins(name, ".text.")) {
            Kernel& kernel = found[name.substr(6)];
            kernel.name = name.substr(6);
            kernel.registers = registers[section.sh_info & 0xffffff];
        } else if (begins(name, ".nv.shared.") && name.find(".reserved") == std::string::npos) {
            found[name.substr(11)].shared = section.sh_size - std::min<size_t>(section.sh_size, SYSTEM);
        } else if (begins(name, ".nv.info.")) {
            Kernel& kernel = found[name.substr(9)];
            records(base + section.sh_offset, section.sh_size, [&](int kind, const auto& words) {
                if (kind == THREADS) kernel.threads = words[0] * words[1] * words[2];
                if (kind != PARAMETER) return;
                size_t place = words[1] & 0xffff;
                kernel.parameters.resize(std::max(kernel.parameters.size(), place + 1));
                kernel.parameters[place] = words[2] >> 18;
            });
        }
    }
    return found;
}

}  // namespace fake
