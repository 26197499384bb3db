// The files that victim.cpp was built as; CMakeLists.txt says how they differ.
#pragma once

extern const char* const kVictimLazy;
extern const char* const kVictimNow;
extern const char* const kVictimInterpreter;
extern const char* const kVictimFortified;
// A name without a folder: found only by a library whose RUNPATH leads to it.
extern const char* const kVictimHidden;
