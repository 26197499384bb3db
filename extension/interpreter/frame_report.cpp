// Writes the Python frames of the running fiber while the process is dying of its overflow.
//
// Nothing may be allocated and no lock taken, so strings are read where they lie; what is not ASCII is shown as '?'.
// The line is computed by the function that faulthandler uses for the same purpose. Invariant: async-signal-safe as
// long as the chain of frames is whole.
#include <unistd.h>

#include "interpreter/frame_chain.hpp"
#include "interpreter/interpreter.hpp"

namespace culm::interpreter {

namespace {

constexpr int kFramesMax = 40;
constexpr Py_ssize_t kTextMax = 200;

class Line {
public:
    void add(const char* text) noexcept {
        for (; *text != '\0'; ++text) add(*text);
    }
    void add(char letter) noexcept {
        if (length_ < sizeof(text_)) text_[length_++] = letter;
    }
    void add_number(unsigned number) noexcept {
        char digits[12];
        int count = 0;
        do {
            digits[count++] = static_cast<char>('0' + number % 10);
            number /= 10;
        } while (number != 0);
        while (count > 0) add(digits[--count]);
    }
    void add_string(PyObject* text) noexcept {
        if (text == nullptr || !PyUnicode_Check(text)) return add('?');
        const Py_ssize_t length = PyUnicode_GET_LENGTH(text);
        for (Py_ssize_t i = 0; i < length && i < kTextMax; ++i) {
            const Py_UCS4 letter = PyUnicode_READ_CHAR(text, i);
            add(letter >= 0x20 && letter < 0x7f ? static_cast<char>(letter) : '?');
        }
    }
    void send() const noexcept { (void)!::write(STDERR_FILENO, text_, length_); }

private:
    char text_[512];
    std::size_t length_ = 0;
};

#if PY_VERSION_HEX >= 0x030D0000
_PyInterpreterFrame* innermost(PyThreadState* tstate) noexcept { return tstate->current_frame; }
#else
_PyInterpreterFrame* innermost(PyThreadState* tstate) noexcept { return tstate->cframe->current_frame; }
#endif

// Frames by which C enters the evaluation loop have no code of the program's.
bool is_of_the_program(const _PyInterpreterFrame* frame) noexcept {
    return frame->owner == FRAME_OWNED_BY_THREAD || frame->owner == FRAME_OWNED_BY_GENERATOR;
}

#if PY_VERSION_HEX >= 0x030D0000
PyCodeObject* code_of(_PyInterpreterFrame* frame) noexcept { return _PyFrame_GetCode(frame); }
#else
PyCodeObject* code_of(_PyInterpreterFrame* frame) noexcept { return frame->f_code; }
#endif

#if PY_VERSION_HEX >= 0x030C0000
int line_of(_PyInterpreterFrame* frame) noexcept { return PyUnstable_InterpreterFrame_GetLine(frame); }
#else
int line_of(_PyInterpreterFrame* frame) noexcept {
    return PyCode_Addr2Line(frame->f_code, _PyInterpreterFrame_LASTI(frame) * static_cast<int>(sizeof(_Py_CODEUNIT)));
}
#endif

void write_frame(_PyInterpreterFrame* frame) noexcept {
    PyCodeObject* code = code_of(frame);
    const int number = line_of(frame);
    Line line;
    line.add("  File \"");
    line.add_string(code->co_filename);
    line.add("\", line ");
    if (number > 0) {
        line.add_number(static_cast<unsigned>(number));
    } else {
        line.add('?');
    }
    line.add(", in ");
    line.add_string(code->co_qualname);
    line.add('\n');
    line.send();
}

}  // namespace

void write_running_frames(const ThreadRecord& thread) noexcept {
    Line heading;
    heading.add("Python frames, innermost first:\n");
    heading.send();
    int left = kFramesMax;
    for (_PyInterpreterFrame* frame = innermost(thread.tstate); frame != nullptr; frame = frame->previous) {
        if (!is_of_the_program(frame)) continue;
        if (left-- > 0) {
            write_frame(frame);
            continue;
        }
        Line rest;
        rest.add("  ...\n");
        return rest.send();
    }
}

}  // namespace culm::interpreter
