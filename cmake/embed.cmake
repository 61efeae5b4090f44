# embed_files(OUT file...): each file becomes `extern const std::string_view embedded_<name>` (dots become underscores),
# declared in embedded.hpp. Text only; written as raw string pieces because compilers limit the length of one literal.
function(embed_files out)
  set(sources)
  foreach(file IN LISTS ARGN)
    get_filename_component(name ${file} NAME)
    string(MAKE_C_IDENTIFIER ${name} id)
    set(target ${CMAKE_BINARY_DIR}/generated/embedded_${id}.cpp)
    add_custom_command(OUTPUT ${target}
      COMMAND ${CMAKE_COMMAND} -DINPUT=${CMAKE_SOURCE_DIR}/${file} -DOUTPUT=${target} -DID=${id} -P ${CMAKE_SOURCE_DIR}/cmake/embed_one.cmake
      DEPENDS ${CMAKE_SOURCE_DIR}/${file} ${CMAKE_SOURCE_DIR}/cmake/embed_one.cmake VERBATIM)
    list(APPEND sources ${target})
  endforeach()
  set(${out} ${sources} PARENT_SCOPE)
endfunction()
