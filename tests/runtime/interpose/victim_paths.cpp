// The only source that is told where this build has put the victims. Otherwise each build would compile every test
// anew, where a compiler cache could give it the objects of another build.
#include "victim_paths.hpp"

const char* const kVictimLazy = CULM_VICTIM_LAZY;
const char* const kVictimNow = CULM_VICTIM_NOW;
const char* const kVictimInterpreter = CULM_VICTIM_INTERPRETER;
const char* const kVictimFortified = CULM_VICTIM_FORTIFIED;
const char* const kVictimHidden = CULM_VICTIM_HIDDEN;
