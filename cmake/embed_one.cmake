# Writes one embedded file (see embed.cmake).
file(READ ${INPUT} hex HEX)
string(LENGTH "${hex}" digits)
math(EXPR size "${digits} / 2")
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
string(REGEX REPLACE "(0x[0-9a-f][0-9a-f],0x[0-9a-f][0-9a-f],0x[0-9a-f][0-9a-f],0x[0-9a-f][0-9a-f],0x[0-9a-f][0-9a-f],0x[0-9a-f][0-9a-f],0x[0-9a-f][0-9a-f],0x[0-9a-f][0-9a-f],)" "\\1\n" bytes "${bytes}")
file(WRITE ${OUTPUT} "#include \"base/embedded.hpp\"\n\nstatic const unsigned char bytes[] = {\n${bytes}0};\n\nnamespace dryfit {\nextern const std::string_view embedded_${ID};\nconst std::string_view embedded_${ID}(reinterpret_cast<const char*>(bytes), ${size});\n}  // namespace dryfit\n")
